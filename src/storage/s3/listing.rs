//! Listing: ListObjectsV2, page by page.

use super::S3Storage;
use super::exchange::Exchange;
use super::trouble::Refusal;
use crate::storage::{ETag, Entry, Key, ListPage, ListRequest, StorageResult};
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::SystemTime;

impl S3Storage {
    /// One page of keys.
    pub(super) async fn page(&self, request: &ListRequest) -> StorageResult<ListPage> {
        let limit = request.limit.map(|limit| i32::try_from(limit.clamp(1, 1000)).unwrap_or(1000));
        let after = request.start_after.as_ref().map(|key| self.full(key));
        let operation = self.operation("list", shown(&request.prefix));
        let list = |client: Client, exchange: Exchange| {
            let request = client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{}{}", self.prefix, request.prefix))
                .encoding_type(EncodingType::Url)
                .set_max_keys(limit)
                .set_continuation_token(request.token.clone())
                .set_start_after(after.clone());
            async move { Ok(request.customize().interceptor(exchange).send().await?) }
        };
        let (page, head) = self.send(&operation, Bytes::new(), list).await?;
        let next = next(&page, request.token.as_deref());
        let next = next.map_err(|refusal| refusal.into_error(&operation, Some(&head)))?;
        let encoded = page.encoding_type == Some(EncodingType::Url);
        let entries = page.contents.unwrap_or_default().into_iter();
        let entries = entries.filter_map(|object| self.entry(object, encoded)).collect();
        Ok(ListPage { entries, next, date: head.date() })
    }

    /// The folders directly below a prefix, from all pages.
    pub(super) async fn folders_below(&self, prefix: &str) -> StorageResult<Vec<String>> {
        let operation = self.operation("list the folders of", shown(prefix));
        let above = format!("{}{prefix}", self.prefix);
        let mut folders = BTreeSet::new();
        let mut token = None;
        loop {
            let list = |client: Client, exchange: Exchange| {
                let request = client
                    .list_objects_v2()
                    .bucket(&self.bucket)
                    .prefix(&above)
                    .delimiter("/")
                    .encoding_type(EncodingType::Url)
                    .set_continuation_token(token.clone());
                async move { Ok(request.customize().interceptor(exchange).send().await?) }
            };
            let (page, head) = self.send(&operation, Bytes::new(), list).await?;
            let encoded = page.encoding_type == Some(EncodingType::Url);
            for folder in page.common_prefixes() {
                let name = folder.prefix().and_then(|name| decoded(name, encoded));
                let name =
                    name.as_deref().and_then(|name| name.strip_prefix(&above)?.strip_suffix('/').map(str::to_owned));
                folders.extend(name.filter(|name| Key::new(name.as_str()).is_some()));
            }
            let next = next(&page, token.as_deref());
            token = next.map_err(|refusal| refusal.into_error(&operation, Some(&head)))?;
            if token.is_none() {
                return Ok(folders.into_iter().collect());
            }
        }
    }

    /// The entry of a listed object; none for what is no key of ours.
    fn entry(&self, object: Object, encoded: bool) -> Option<Entry> {
        let key = decoded(object.key.as_deref()?, encoded)?;
        Some(Entry {
            key: Key::new(key.strip_prefix(&self.prefix)?)?,
            // Whatever else the store leaves out, the key is there.
            size: object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            etag: object.e_tag.map(ETag),
            last_modified: object.last_modified.and_then(|time| SystemTime::try_from(time).ok()),
        })
    }
}

/// A prefix in a message.
fn shown(prefix: &str) -> &str {
    if prefix.is_empty() { "everything" } else { prefix }
}

/// The next page's token; `asked` is that of this page. What a listing leaves out looks absent, so one that does not say that it
/// is whole, or says that it goes on but not where, is no listing; and one that goes on where it began would never end.
fn next(page: &ListObjectsV2Output, asked: Option<&str>) -> Result<Option<String>, Refusal> {
    let nonsense = |why: &str| Err(Refusal::Nonsense(why.to_owned()));
    match (page.is_truncated, page.next_continuation_token.as_deref()) {
        (Some(false), _) => Ok(None),
        (Some(true), Some(token)) if Some(token) == asked => nonsense("the listing repeats itself"),
        (Some(true), Some(token)) if !token.is_empty() => Ok(Some(token.to_owned())),
        (Some(true), _) => nonsense("the listing goes on, but does not say where"),
        (None, _) => nonsense("the listing does not say whether it is whole"),
    }
}

/// A listed key as text. Stores that know the encoding say that they used it.
fn decoded(key: &str, encoded: bool) -> Option<String> {
    if !encoded {
        return Some(key.to_owned());
    }
    let mut bytes = key.bytes();
    let mut text = Vec::with_capacity(key.len());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(text).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_stores_encode_them() {
        for (listed, encoded, key) in [
            ("a/b-c_d.e", true, Some("a/b-c_d.e")),
            ("a%2Fb%2fc", true, Some("a/b/c")),
            ("a+b%20c%2B", true, Some("a b c+")),
            ("a%2Fb+", false, Some("a%2Fb+")),
            ("%C3%A4", true, Some("ä")),
            ("%C3", true, None),
            ("%", true, None),
            ("%4", true, None),
            ("%+4", true, None),
        ] {
            assert_eq!(decoded(listed, encoded).as_deref(), key, "{listed}");
        }
    }

    #[test]
    fn a_listing_that_goes_on_says_where() {
        let page = |more, token: Option<&str>| {
            let page = ListObjectsV2Output::builder()
                .set_is_truncated(more)
                .set_next_continuation_token(token.map(Into::into));
            next(&page.build(), Some("asked")).ok()
        };
        assert_eq!(page(Some(false), None), Some(None));
        assert_eq!(page(Some(true), Some("t")), Some(Some("t".to_owned())));
        for (more, token) in
            [(Some(true), None), (Some(true), Some("")), (Some(true), Some("asked")), (None, None), (None, Some("t"))]
        {
            assert_eq!(page(more, token), None, "{more:?} {token:?}");
        }
    }
}
