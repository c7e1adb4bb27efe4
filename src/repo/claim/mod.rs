//! The claim protocol: one winner on a store without conditional create.
//!
//! Every call
//! 1. reads the key: the same content ends well, other content is refused;
//! 2. puts `claim/…/<hash>` anew, which renews its date;
//! 3. lists the claims on the key. Only its own there: it puts the object, cut off *W* after that listing began, and reads it
//!    back. A live rival with a smaller hash: it gives up at once, Postgres asks again, and step 1 decides. Only larger or dead
//!    rivals: it waits *W*, reads the key and lists again, and puts if the key is still free.
//!
//! So each put follows, within W, a listing without a live smaller claim; and whoever sees a rival looks at the key only after
//! that rival's put has ended. A claim that was not renewed for an hour (`Last-Modified` against the `Date` of the same answer:
//! the one place where a date is believed) is dead, so a dead writer wedges nobody. What remains is a put that the store
//! carries out after its client cut it off.
//!
//! A claim vouches for its owner while it is fresh: an owner that was stopped between claim and listing for so long that others
//! may soon take it for dead begins anew.

use super::judge::{Offer, Verdict};
use super::repository::{Cluster, Deposited, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{ETag, Entry, Integrity, ListRequest, PutMode};
use bytes::Bytes;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The protocol's times. The same on every host that archives into one repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// W for each started 16 MiB of plain size.
    pub(super) per_unit: Duration,
    /// How long a claim lives after it was last renewed.
    pub(super) life: Duration,
}

impl Pace {
    /// 5 s per started 16 MiB; an hour.
    pub(super) const HOUSE: Pace = Pace { per_unit: Duration::from_secs(5), life: Duration::from_secs(60 * 60) };

    /// W.
    pub(super) fn window(self, plain_length: u64) -> Duration {
        let units = plain_length.div_ceil(16 << 20).max(1);
        self.per_unit.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX))
    }
}

/// What a reading of the key showed.
enum Sight {
    /// The same content is there: its stored length, and its tag.
    Same(usize, Option<ETag>),
    /// Nothing is there.
    Absent,
    /// What is there is worth nothing: why, and its bytes.
    Worthless(String, Bytes),
}

/// What a listing of the claims showed.
#[derive(Debug)]
struct Survey {
    /// When the listing began.
    began: Instant,
    rivals: Rivals,
}

#[derive(Debug, PartialEq, Eq)]
enum Rivals {
    /// Only our own claim.
    None,
    /// Larger or dead ones.
    Behind,
    /// A live one with a smaller hash; its name.
    Ahead(String),
}

impl Cluster {
    /// [`Cluster::store`] on a store that does not create conditionally.
    pub(super) async fn store_by_claim(&self, offer: &Offer) -> Result<Stored> {
        let window = self.pace.window(offer.plain_length());
        let mut sight = self.sight(offer).await?;
        if let Sight::Same(length, etag) = sight {
            return Ok(Stored::new(Deposited::Already, length, etag));
        }
        self.stake(offer).await?;
        let mut survey = self.survey(offer).await?;
        if survey.rivals == Rivals::Behind {
            tokio::time::sleep(window).await;
            sight = self.sight(offer).await?;
            if let Sight::Same(length, etag) = sight {
                return Ok(Stored::new(Deposited::Already, length, etag));
            }
            survey = self.survey(offer).await?;
        }
        if let Rivals::Ahead(rival) = survey.rivals {
            return Err(self.rivalled(offer, &rival));
        }
        self.put_within(offer, survey.began + window).await?;
        let (length, etag) = self.read_back(offer).await?;
        let deposited = match sight {
            Sight::Worthless(why, _) => Deposited::Replaced(why),
            Sight::Absent | Sight::Same(..) => Deposited::New,
        };
        Ok(Stored::new(deposited, length, etag))
    }

    /// [`Self::store_by_claim`] where neither an object nor a rival is there. `None`: one is.
    pub(super) async fn create_by_claim(&self, offer: &Offer) -> Result<Option<Stored>> {
        let Sight::Absent = self.sight_once(offer).await? else { return Ok(None) };
        self.stake(offer).await?;
        let survey = self.survey(offer).await?;
        if survey.rivals != Rivals::None {
            return Ok(None);
        }
        self.put_within(offer, survey.began + self.pace.window(offer.plain_length())).await?;
        let (length, etag) = self.read_back(offer).await?;
        Ok(Some(Stored::new(Deposited::New, length, etag)))
    }

    /// Reads the key. What seems worthless is read twice: on a store without conditions nothing else protects a good object
    /// from one garbled answer.
    async fn sight(&self, offer: &Offer) -> Result<Sight> {
        match self.sight_once(offer).await? {
            Sight::Worthless(why, body) => match self.sight_once(offer).await? {
                Sight::Worthless(_, again) if again != body => Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{} reads differently each time ({why}): nothing was written", offer.place),
                )),
                second => Ok(second),
            },
            sight => Ok(sight),
        }
    }

    async fn sight_once(&self, offer: &Offer) -> Result<Sight> {
        match self.storage.get(&offer.key, None).await {
            Ok(object) => match offer.judge(&object.body).await? {
                Verdict::Same => Ok(Sight::Same(object.body.len(), object.etag)),
                Verdict::Other(refusal) => Err(refusal),
                Verdict::Worthless(why) => Ok(Sight::Worthless(why, object.body)),
            },
            Err(error) if error.is_not_found() => Ok(Sight::Absent),
            Err(error) => Err(error.into()),
        }
    }

    async fn stake(&self, offer: &Offer) -> Result<()> {
        let claim = self.layout.claim(&offer.key, &offer.hash());
        let body = Bytes::from(format!("claim on {}\n", offer.key));
        self.storage.put(&claim, body, &PutMode::Overwrite, Integrity::Sound).await?;
        Ok(())
    }

    async fn survey(&self, offer: &Offer) -> Result<Survey> {
        let began = Instant::now();
        let own = offer.hash().to_string();
        let mut request = ListRequest::prefix(self.layout.claims_on(&offer.key));
        let mut rivals = Rivals::None;
        let mut own_age = None;
        loop {
            let page = self.storage.list(&request).await?;
            for entry in &page.entries {
                let age = age(entry, page.date);
                let name = entry.key.name();
                if name == own {
                    own_age = Some(age);
                } else if self.is_ahead(name, &own, age) {
                    rivals = Rivals::Ahead(name.to_owned());
                } else if rivals == Rivals::None {
                    rivals = Rivals::Behind;
                }
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => break,
            }
        }
        match own_age {
            None => Err(self.unclaimed(offer, "the storage does not list the claim that it has just acknowledged")),
            // Half its life: far more than W, and far from the end at which a rival may stop minding it.
            Some(Some(age)) if age >= self.pace.life / 2 => {
                Err(self.unclaimed(offer, "too much time went by since it was claimed"))
            }
            Some(_) => Ok(Survey { began, rivals }),
        }
    }

    /// Whether a foreign claim is alive and comes before ours. A name that is no hash belongs to somebody whom this version
    /// does not know, and comes first.
    fn is_ahead(&self, name: &str, own: &str, age: Option<Duration>) -> bool {
        let alive = age.is_none_or(|age| age < self.pace.life);
        let is_hash = name.parse::<crate::codec::ContentHash>().is_ok();
        alive && (!is_hash || name < own)
    }

    async fn put_within(&self, offer: &Offer, deadline: Instant) -> Result<()> {
        let late = || self.late(offer);
        if Instant::now() >= deadline {
            return Err(late());
        }
        let put = self.storage.put(&offer.key, offer.body.clone(), &PutMode::Overwrite, Integrity::Sound);
        match tokio::time::timeout_at(deadline, put).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(late()),
        }
    }

    async fn read_back(&self, offer: &Offer) -> Result<(usize, Option<ETag>)> {
        match self.sight_once(offer).await? {
            Sight::Same(length, etag) => Ok((length, etag)),
            Sight::Absent => Err(self.unclaimed(offer, "it was acknowledged, and then was not there")),
            Sight::Worthless(why, _) => Err(self.unclaimed(offer, &format!("it was acknowledged, and then {why}"))),
        }
    }

    fn late(&self, offer: &Offer) -> Error {
        let window = self.pace.window(offer.plain_length()).as_secs();
        let why = format!("it was not stored within the {window} s in which no rival can come");
        self.unclaimed(offer, &why).hint(format!(
            "the next call begins anew; if each of them ends so, the line is too slow: it must carry the {} bytes in {window} s",
            offer.body.len()
        ))
    }

    fn rivalled(&self, offer: &Offer, rival: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} is claimed by other content (BLAKE3 {rival}, ours {}) at this moment",
                offer.place,
                offer.hash()
            ),
        )
        .hint("the next call decides; two servers archive under one name (two primaries, or a restored copy)")
    }

    fn unclaimed(&self, offer: &Offer, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} is not proven stored: {why}", offer.place))
            .hint("the next call begins anew")
    }
}

/// How long ago a claim was renewed, by the store's own clock; a claim from the future is new, one without dates never dies.
fn age(entry: &Entry, date: Option<SystemTime>) -> Option<Duration> {
    Some(date?.duration_since(entry.last_modified?).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests;
