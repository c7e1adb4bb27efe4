//! Replacing an object that holds nothing: the only case in which anything is written over.

use super::judge::{Offer, Verdict};
use super::probe::Need;
use super::repository::{Cluster, Deposited, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{ETag, Integrity, PutMode, StorageErrorKind};

impl Cluster {
    /// Replaces what was just read under `tag`, where the endpoint showed that it honours `If-Match`; else refuses. `None`: it
    /// changed meanwhile.
    pub(super) async fn replace(&self, offer: &Offer, tag: Option<ETag>, why: &str) -> Result<Option<Stored>> {
        let capabilities = self.learn(Need::All).await?;
        let Some(tag) = tag.filter(|_| capabilities.if_match) else {
            return Err(irreplaceable(offer, why));
        };
        let put = self.storage.put(&offer.key, offer.body.clone(), &PutMode::IfMatch(tag), Integrity::Sound).await;
        let etag = match put {
            Ok(etag) => etag,
            Err(error) if error.kind == StorageErrorKind::Precondition || error.is_not_found() => return Ok(None),
            Err(error) if error.kind == StorageErrorKind::ConditionUnsupported => {
                self.forget_capabilities();
                return Err(irreplaceable(offer, why));
            }
            Err(error) => return Err(error.into()),
        };
        if capabilities.verifies_integrity || self.holds(offer).await? {
            return Ok(Some(Stored::new(Deposited::Replaced(why.to_owned()), offer.body.len(), etag)));
        }
        Ok(None)
    }

    /// Whether the key holds the offered content now; other content is refused.
    async fn holds(&self, offer: &Offer) -> Result<bool> {
        match self.storage.get(&offer.key, None).await {
            Ok(object) => match offer.judge(&object.body).await? {
                Verdict::Same => Ok(true),
                Verdict::Other(refusal) => Err(refusal),
                Verdict::Worthless(_) => Ok(false),
            },
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(Error::from(error).context("reading back what was to be stored")),
        }
    }
}

fn irreplaceable(offer: &Offer, why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "{} is taken by something that nobody could restore ({why}), and this storage offers no safe way to replace it",
            offer.place
        ),
    )
    .hint("delete that object; the next call stores the file under its name")
}
