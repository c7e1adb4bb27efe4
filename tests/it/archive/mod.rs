//! `walhalla-archive` and `walhalla-restore`: the real programs, first called by hand in a data directory without a server, then by
//! real servers.

mod ahead;
mod ahead_server;
mod bench;
mod chroot;
mod crash;
mod credentials;
mod deadlines;
mod fetch;
mod fetch_table;
mod identity;
mod power_loss;
mod prefetch;
mod push;
mod recovery;
mod site;
mod standby;
mod tables;
