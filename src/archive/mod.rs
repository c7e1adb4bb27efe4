//! One WAL file in, one WAL file out: what Postgres runs as `archive_command` and `restore_command`.
//!
//! | file | subject |
//! |---|---|
//! | [`program`] | what both programs share: the supervisor, the panic hook, the one line on stderr |
//! | [`arguments`] | the command lines |
//! | [`data_directory`] | the server's directory, as far as the two programs look into it |
//! | [`source`] | the WAL file to be archived: opened, and held against its name and cluster |
//! | [`push`] | `walhalla-archive`: one file proven to be stored |
//! | `encode` | that file made into its object |
//! | `ahead` | further files of a backlog stored beside it, and the calls that find them stored |
//! | [`mode`] | what the server that asks is doing: the column of the exit-code table |
//! | [`patience`] | how long each of them tries |
//! | [`notes`] | what one call of `walhalla-restore` tells the next |
//! | `promotion` | what a call knows of a promotion: whether it must have the archive, whether it met trouble |
//! | [`startup`] | the startup process that a restore call works for |
//! | [`fetch`] | `walhalla-restore`: one file delivered whole, or an answer that is proven |
//! | `call` | one such call: asks until there is an answer, or no patience left |
//! | `target` | where the file comes from, and what it must be |
//! | `delivery` | one object: asked for, verified, and only then a file |
//! | `gap` | a file that is missing while later ones are there |
//! | `prefetch` | the segments after this one, fetched before they are asked for |
//!
//! `ahead` and `prefetch` build on the same functions as the calls themselves, one file at a time: neither may ever say more than
//! those have proven.

mod ahead;
pub mod arguments;
mod call;
pub mod data_directory;
mod delivery;
mod encode;
pub mod fetch;
mod gap;
pub mod mode;
pub mod notes;
pub mod patience;
mod prefetch;
pub mod program;
mod promotion;
pub mod push;
pub mod source;
pub mod startup;
mod subject;
mod target;
