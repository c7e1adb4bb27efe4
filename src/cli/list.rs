//! `walhalla list`
