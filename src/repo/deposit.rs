//! Storing under a key that nobody may have used: Ok means durable, and proven.

use super::judge::{Offer, Verdict};
use super::repository::{Cluster, Deposited};
use crate::codec::{Encoded, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::WalFileName;
use crate::storage::{Integrity, Key, PutMode, StorageErrorKind};

/// How often one deposit begins anew because the object under its key came or went meanwhile.
const ROUNDS: usize = 4;

impl Cluster {
    /// Stores an object under a key that nobody may have used: create-only, resolved by reading back, or by the claim protocol.
    /// Ok means durable and proven; other content under the key is `Duplicate`. An object from which nobody could restore
    /// anything, and which this storage offers no safe way to replace, is `Corrupt`.
    pub async fn deposit(&self, key: &Key, object: &Encoded) -> Result<Deposited> {
        let subject = object.header.subject;
        if subject.system_identifier != self.layout.system() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{} is about cluster {}, not about this one", self.place(key), subject.system_identifier),
            ));
        }
        self.store(&Offer::object(self.place(key), key.clone(), object)).await
    }

    /// [`Self::deposit`] of a WAL file under its name, a second `.partial` or `.backup` beside the first: for these two kinds
    /// never `Duplicate`, so that two promotions never wedge an archiver.
    pub async fn deposit_wal(&self, name: &WalFileName, object: &Encoded) -> Result<Deposited> {
        let subject = object.header.subject;
        if subject.kind != Kind::Wal || subject.timeline != name.timeline().get() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{name} and its object disagree: {:?} of timeline {}", subject.kind, subject.timeline),
            ));
        }
        let first = self.deposit(&self.layout.wal(name), object).await;
        let may_lie_beside = matches!(name, WalFileName::Partial(_) | WalFileName::BackupHistory { .. });
        match first {
            Err(error) if may_lie_beside && matches!(error.kind(), ErrorKind::Duplicate | ErrorKind::Corrupt) => {
                let key = self.layout.wal_beside(name, &object.header.plain_hash);
                tracing::warn!("{error}; stored beside it as {key}");
                match self.deposit(&key, object).await {
                    Ok(_) => Ok(Deposited::Beside),
                    // The key carries the hash: other content there is no second promotion, but something amiss.
                    Err(error) if error.kind() == ErrorKind::Duplicate => Err(error.with_kind(ErrorKind::Corrupt)),
                    Err(error) => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// Stores an object or the identity by whatever means the endpoint has.
    pub(super) async fn store(&self, offer: &Offer) -> Result<Deposited> {
        for _ in 0..ROUNDS {
            let capabilities = self.capabilities().await?;
            if !capabilities.create_only {
                return self.store_by_claim(offer).await;
            }
            let put = self.storage.put(&offer.key, offer.body.clone(), &PutMode::CreateOnly, Integrity::Sound).await;
            let settled = match put {
                Ok(_) if capabilities.verifies_integrity => return Ok(Deposited::New),
                Ok(_) => self.settle(offer, Deposited::New).await?,
                Err(error) if error.kind == StorageErrorKind::Precondition => {
                    self.settle(offer, Deposited::Already).await?
                }
                Err(error) if error.kind == StorageErrorKind::ConditionUnsupported => {
                    tracing::warn!("{error}; storing by the claim protocol from now on");
                    self.refute_create_only();
                    None
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(deposited) = settled {
                return Ok(deposited);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} could not be settled in {ROUNDS} tries: it is there when written and gone when read, or changes",
                offer.place
            ),
        )
        .hint("something else writes or deletes under this key, or the storage contradicts itself"))
    }

    /// Reads back what is under the key. The same content ends well, as `same`; other content is refused; what nobody could
    /// restore is replaced. `None`: it has changed meanwhile, begin anew.
    async fn settle(&self, offer: &Offer, same: Deposited) -> Result<Option<Deposited>> {
        let object = match self.storage.get(&offer.key, None).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(Error::from(error).context("reading back what was to be stored")),
        };
        match offer.judge(&object.body).await? {
            Verdict::Same => Ok(Some(same)),
            Verdict::Other(refusal) => Err(refusal),
            Verdict::Worthless(why) => self.replace(offer, object.etag, &why).await,
        }
    }
}
