//! The store behind the false S3: a map, and the rules by which it changes.

use super::State;
use super::personality::{Check, Condition, Order, Right};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use md5::{Digest as _, Md5};
use s3s::crypto::Checksum as _;
use s3s::dto::*;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// An object at rest.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) body: Bytes,
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
}

/// The S3 operations over the shared state.
pub(crate) struct Store {
    pub(crate) state: Arc<Mutex<State>>,
}

impl Store {
    /// What every operation checks first.
    fn enter(&self, bucket: &str, right: Right, key: &str) -> S3Result<()> {
        let state = self.state.lock().unwrap();
        if state.personality.no_such_bucket || bucket != super::BUCKET {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        }
        if state.is_denied(right, key) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(())
    }

    fn find(&self, key: &str) -> S3Result<Stored> {
        let state = self.state.lock().unwrap();
        if let Some(object) = state.objects.get(key) {
            return Ok(object.clone());
        }
        if state.is_denied(Right::List, key) {
            // As AWS: who may not list is not told whether a key exists.
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        let mut error = S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist.");
        if state.deleted.contains(key) {
            let mut headers = hyper::HeaderMap::new();
            headers.insert("x-amz-delete-marker", "true".parse().unwrap());
            headers.insert("content-type", "application/xml".parse().unwrap());
            error.set_headers(headers);
        }
        Err(error)
    }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        self.enter(&input.bucket, Right::Put, &input.key)?;
        if req.headers.contains_key("x-amz-trailer") {
            return Err(s3_error!(NotImplemented, "trailing checksums"));
        }
        if !input.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b)) {
            return Err(s3_error!(InvalidArgument, "this store wants plain keys"));
        }
        let mut output = PutObjectOutput::default();
        let checksum = given_checksum(&input);
        let md5 = input.content_md5.clone();
        let body = match input.body {
            Some(body) => Body::from(body).collect().await.map_err(|_| s3_error!(IncompleteBody))?.to_bytes(),
            None => Bytes::new(),
        };

        // One lock from the conditions to the insertion: of several creators one wins.
        let mut state = self.state.lock().unwrap();
        let personality = &mut state.personality;
        if personality.one_checksum && checksum.len() + usize::from(md5.is_some()) > 1 {
            return Err(s3_error!(InvalidRequest, "You can only specify one non-default checksum at a time."));
        }
        if let Some(md5) = md5 {
            check(personality.md5, "content-md5", STANDARD.encode(Md5::digest(&body)) == md5)?;
        }
        for (algorithm, value) in checksum {
            check(personality.checksum, algorithm, checksum_of(algorithm, &body) == value)?;
            if personality.checksum != Check::Ignore {
                echo(&mut output, algorithm, value);
            }
        }
        let existing = state.objects.get(input.key.as_str()).map(|object| object.etag.clone());
        let personality = &mut state.personality;
        if let Some(condition) = input.if_none_match {
            if !condition.is_any() {
                return Err(s3_error!(NotImplemented, "If-None-Match with an ETag"));
            }
            demand(&mut personality.create_only, existing.is_none())?;
        }
        if let Some(condition) = input.if_match {
            if existing.is_none() && personality.if_match == Condition::Honour {
                return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
            }
            let fits = condition.as_etag().map(|etag| etag.value().to_owned()) == existing;
            demand(&mut personality.if_match, fits)?;
        }
        *state.commits.entry(input.key.clone()).or_default() += 1;
        output.e_tag = Some(ETag::Strong(state.insert(&input.key, body)));
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        self.enter(&input.bucket, Right::Get, &input.key)?;
        let object = self.find(&input.key)?;
        if let Some(condition) = input.if_match
            && condition.as_etag().is_none_or(|etag| etag.value() != object.etag)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        };
        let whole = object.body.len() as u64;
        let body = match input.range {
            None => object.body,
            Some(range) => {
                let range = range.check(whole)?;
                output.content_range = Some(format!("bytes {}-{}/{whole}", range.start, range.end - 1));
                object.body.slice(range.start as usize..range.end as usize)
            }
        };
        output.content_length = Some(body.len() as i64);
        output.body = Some(StreamingBlob::from(Body::from(body)));
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        self.enter(&input.bucket, Right::Get, &input.key)?;
        let object = self.find(&input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.body.len() as i64),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        self.enter(&input.bucket, Right::Delete, &input.key)?;
        self.state.lock().unwrap().remove(&input.key);
        Ok(S3Response::with_status(DeleteObjectOutput::default(), hyper::StatusCode::NO_CONTENT))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        self.enter(&input.bucket, Right::List, &prefix)?;
        let state = self.state.lock().unwrap();
        let backwards = state.personality.order == Order::Backwards;
        let behind = |row: &str, mark: &str| if backwards { row < mark } else { row > mark };

        // A row is a key, or the part of it up to the delimiter, once.
        let mut rows: Vec<String> = Vec::new();
        for key in state.objects.keys().filter(|key| key.starts_with(&prefix)) {
            let row = match &input.delimiter {
                Some(delimiter) => match key[prefix.len()..].find(delimiter.as_str()) {
                    Some(at) => &key[..prefix.len() + at + delimiter.len()],
                    None => key,
                },
                None => key,
            };
            if rows.last().is_none_or(|last| last != row) {
                rows.push(row.to_owned());
            }
        }
        if backwards {
            rows.reverse();
        }
        match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => {
                let mark = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let mark = mark.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token is incorrect"))?;
                rows.retain(|row| behind(row, &mark));
            }
            (None, Some(after)) if state.personality.start_after => rows.retain(|row| row > after),
            _ => {}
        }
        let most = input.max_keys.map_or(1000, |keys| keys.max(0) as usize).min(state.personality.page);
        let truncated = rows.len() > most;
        rows.truncate(most);

        let (mut contents, mut common) = (Vec::new(), Vec::new());
        for row in &rows {
            match state.objects.get(row) {
                Some(object) => contents.push(Object {
                    key: Some(row.clone()),
                    size: Some(object.body.len() as i64),
                    e_tag: Some(ETag::Strong(object.etag.clone())),
                    last_modified: Some(Timestamp::from(object.modified)),
                    ..Default::default()
                }),
                None => common.push(CommonPrefix { prefix: Some(row.clone()) }),
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            key_count: Some(rows.len() as i32),
            max_keys: Some(most as i32),
            is_truncated: Some(truncated),
            next_continuation_token: truncated.then(|| STANDARD.encode(rows.last().unwrap())),
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            contents: Some(contents),
            common_prefixes: Some(common),
            ..Default::default()
        }))
    }
}

/// The integrity headers of a put, apart from Content-MD5.
fn given_checksum(input: &PutObjectInput) -> Vec<(&'static str, String)> {
    [
        ("crc32", &input.checksum_crc32),
        ("crc32c", &input.checksum_crc32c),
        ("crc64nvme", &input.checksum_crc64nvme),
        ("sha1", &input.checksum_sha1),
        ("sha256", &input.checksum_sha256),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.clone().map(|value| (name, value)))
    .collect()
}

fn checksum_of(algorithm: &str, body: &[u8]) -> String {
    let mut hasher = s3s::checksum::ChecksumHasher::default();
    match algorithm {
        "crc32" => hasher.crc32 = Some(s3s::crypto::Crc32::new()),
        "crc32c" => hasher.crc32c = Some(s3s::crypto::Crc32c::new()),
        "crc64nvme" => hasher.crc64nvme = Some(s3s::crypto::Crc64Nvme::new()),
        "sha1" => hasher.sha1 = Some(s3s::crypto::Sha1::new()),
        _ => hasher.sha256 = Some(s3s::crypto::Sha256::new()),
    }
    hasher.update(body);
    let sum = hasher.finalize();
    [sum.checksum_crc32, sum.checksum_crc32c, sum.checksum_crc64nvme, sum.checksum_sha1, sum.checksum_sha256]
        .into_iter()
        .flatten()
        .next()
        .unwrap()
}

fn echo(output: &mut PutObjectOutput, algorithm: &str, value: String) {
    match algorithm {
        "crc32" => output.checksum_crc32 = Some(value),
        "crc32c" => output.checksum_crc32c = Some(value),
        "crc64nvme" => output.checksum_crc64nvme = Some(value),
        "sha1" => output.checksum_sha1 = Some(value),
        _ => output.checksum_sha256 = Some(value),
    }
}

fn check(manner: Check, header: &str, fits: bool) -> S3Result<()> {
    match manner {
        Check::Verify if !fits => {
            Err(s3_error!(BadDigest, "The {header} you specified did not match what we received."))
        }
        Check::Reject400 => {
            Err(s3_error!(InvalidArgument, "Unsupported header '{header}' received for this API call."))
        }
        Check::Verify | Check::Ignore | Check::Echo => Ok(()),
    }
}

fn demand(manner: &mut Condition, holds: bool) -> S3Result<()> {
    if let Condition::Conflict409(left @ 1..) = manner {
        *left -= 1;
        let code = S3ErrorCode::Custom("ConditionalRequestConflict".into());
        let mut error =
            S3Error::with_message(code, "The conditional request cannot succeed due to a conflicting operation.");
        error.set_status_code(hyper::StatusCode::CONFLICT);
        return Err(error);
    }
    match manner {
        Condition::Reject501 => {
            Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented."))
        }
        Condition::Honour | Condition::Conflict409(_) if !holds => Err(s3_error!(PreconditionFailed)),
        Condition::Refuse => Err(s3_error!(PreconditionFailed)),
        Condition::Honour | Condition::Conflict409(_) | Condition::Ignore => Ok(()),
    }
}
