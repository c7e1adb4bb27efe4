//! `walhalla-archive` and `walhalla-restore`: the real programs, first called by hand in a data directory without a server, then by
//! real servers.

mod bench;
mod chroot;
mod credentials;
mod fetch;
mod fetch_table;
mod push;
mod recovery;
mod site;
mod standby;
mod tables;
