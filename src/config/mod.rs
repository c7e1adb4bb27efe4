//! What the user asked for. Reads the file and the environment, opens nothing else.

pub mod secret;
pub mod settings;

pub use secret::Secret;
pub use settings::{Addressing, Prefetch, S3Credentials, S3Settings, Settings, StorageUrl};
