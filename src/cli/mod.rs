//! Arguments and output, one file per verb.
