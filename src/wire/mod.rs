//! The Postgres wire client, on postgres-protocol: connecting as libpq does, simple queries, copy streams, replication.
