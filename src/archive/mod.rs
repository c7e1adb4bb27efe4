//! One WAL file in, one WAL file out.
