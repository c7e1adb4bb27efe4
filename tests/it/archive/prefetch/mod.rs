//! `walhalla-restore` fetching ahead of replay: what it delivers, and what it never does.

mod helper;
mod servers;
mod spool;
mod startup;
mod ways;
