//! What a request that changes things makes invalid (RFC 9111 section 4.4).

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::key::Target;
use crate::http::{Fields, list};

/// The keys of the entries that the response to an unsafe request makes invalid: the
/// target's own, and those of `Location` and `Content-Location` if they have its
/// origin. None if the request failed.
#[must_use]
pub fn targets(target: &Target, status: u16, response: Fields<'_>) -> Vec<Rc<[u8]>> {
    if !(200..400).contains(&status) {
        return Vec::new();
    }
    let named = ["location", "content-location"].into_iter();
    let named = named.filter_map(|name| target.resolve(list::trim(response.first(name)?)));
    core::iter::once(target.key()).chain(named.map(|target| target.key())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9111_4_4_the_target_and_what_it_points_to() {
        let head: [(&[u8], &[u8]); 3] =
            [(b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/x")];
        let target = Target::of(Fields::new(&head)).unwrap();
        for (status, location, count) in [
            (200, "/y", 2),
            (201, "http://a.example/y", 2),
            (303, "http://b.example/y", 1),
            (404, "/y", 0),
            (500, "/y", 0),
        ] {
            let fields = [(&b"location"[..], location.as_bytes())];
            assert_eq!(targets(&target, status, Fields::new(&fields)).len(), count, "{location}");
        }
        let fields: [(&[u8], &[u8]); 1] = [(b"content-location", b"y")];
        assert_eq!(targets(&target, 200, Fields::new(&fields)).len(), 2);
    }
}
