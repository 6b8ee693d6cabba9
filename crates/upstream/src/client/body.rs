//! The body of a response, while it is read.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize as _;

use crate::error::Fault;

/// The part of a body that was read, which may have secrets: a buffer that is too small is wiped.
pub(super) struct Body {
    read: BytesMut,
    max: usize,
}

/// The most that is reserved for a body before any of it has come. A server states a length at no cost.
const RESERVED: usize = 16 * 1024;

// === impl Body ===

impl Body {
    /// Begins a body of this length, if the head states one.
    pub(super) fn new(stated: usize, max: usize) -> Result<Self, Fault> {
        match stated > max {
            true => Err(Fault::BodyTooLarge),
            false => Ok(Body { read: BytesMut::with_capacity(stated.min(RESERVED)), max }),
        }
    }

    /// Adds what was read next.
    pub(super) fn add(&mut self, data: &[u8]) -> Result<(), Fault> {
        if data.len() > self.max - self.read.len() {
            return Err(Fault::BodyTooLarge);
        }
        let needed = self.read.len() + data.len();
        if needed > self.read.capacity() {
            let mut larger = BytesMut::with_capacity(needed.max(2 * self.read.capacity()).min(self.max));
            larger.extend_from_slice(&self.read);
            self.read.zeroize();
            self.read = larger;
        }
        self.read.extend_from_slice(data);
        Ok(())
    }

    pub(super) fn finish(self) -> Bytes {
        self.read.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_length_reserves_little() {
        let max = 16 * 1024 * 1024;
        let mut body = Body::new(max, max).unwrap();
        assert!(body.read.capacity() <= RESERVED, "{}", body.read.capacity());
        body.add(b"x").unwrap();
        assert!(body.read.capacity() <= RESERVED, "{}", body.read.capacity());
        assert_eq!(Body::new(100, max).unwrap().read.capacity(), 100);
        assert_eq!(Body::new(max + 1, max).err(), Some(Fault::BodyTooLarge));
    }

    #[test]
    fn all_that_comes_is_kept_up_to_the_limit() {
        let max = 3 * RESERVED;
        for piece in [1, 1_000, RESERVED + 1] {
            let bytes: Vec<u8> = (0..max).map(|n| n as u8).collect();
            let mut body = Body::new(0, max).unwrap();
            for piece in bytes.chunks(piece) {
                body.add(piece).unwrap();
                assert!(body.read.capacity() <= max);
            }
            assert_eq!(body.add(b"x"), Err(Fault::BodyTooLarge));
            assert!(body.finish() == bytes, "{piece}");
        }
    }
}
