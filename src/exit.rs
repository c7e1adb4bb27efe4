//! From what went wrong to the exit status, exhaustively, per program. The one place where statuses are numbers.
