//! Bodies that tell the request's pulse when they move.
//!
//! They take the place of the SDK's own after the request was signed: its bodies are in memory and come as one piece, which
//! shows no progress.

use crate::storage::bounded::Progress;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes that hyper takes at once. It holds at most sixteen such pieces before the socket took them: so little may seem sent
/// that is not.
const PIECE: usize = 32 << 10;

/// A body in memory, sent piece by piece.
pub(super) struct Upload {
    rest: Bytes,
    progress: Progress,
}

impl Upload {
    pub(super) fn new(body: Bytes, progress: Progress) -> Self {
        Self { rest: body, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.progress.touch();
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = PIECE.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    /// Exact: with it goes a `Content-Length`, and no chunked encoding.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// An answer's body as it arrives.
pub(super) struct Download<B> {
    inner: B,
    progress: Progress,
}

impl<B> Download<B> {
    pub(super) fn new(inner: B, progress: Progress) -> Self {
        Self { inner, progress }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Download<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        self.progress.touch();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
