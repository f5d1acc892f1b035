//! Whose request this is: the client's address behind proxies, as a key.
//!
//! The left end of `X-Forwarded-For` is whatever the client wrote. Only what a
//! trusted proxy appended is worth something, so the list is read from the right,
//! over all of the fields of that name, and only as far as trust reaches.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

/// A network in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// IPv4 is kept as IPv4-mapped IPv6, so that `::ffff:10.0.0.1` is in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    first: u128,
    last: u128,
}

/// A text that is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The part before `/` is not an address.
    #[error("must be an address or a network such as 10.0.0.0/8 or 2001:db8::/32")]
    Address,
    /// The part after `/` is not a length that fits.
    #[error("the prefix length must be 0 to {most}")]
    Prefix {
        /// 32 for IPv4, 128 for IPv6.
        most: u8,
    },
    /// Bits behind the prefix are set.
    #[error("has bits set behind its prefix: did you mean another length?")]
    HostBits,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(digits) => {
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                let length = digits.parse().ok().filter(|length| plain && *length <= most);
                length.ok_or(NetworkError::Prefix { most })?
            }
        };
        let bits = bits(address);
        let host = host_mask(u32::from(most - length));
        if bits & host != 0 {
            return Err(NetworkError::HostBits);
        }
        Ok(Self { first: bits, last: bits | host })
    }
}

/// The lowest `bits` bits, set.
const fn host_mask(bits: u32) -> u128 {
    match 1_u128.checked_shl(bits) {
        Some(end) => end.wrapping_sub(1),
        None => u128::MAX,
    }
}

/// An address as a number, IPv4 as IPv4-mapped IPv6.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A set of networks. Looking an address up is O(log n).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    // Sorted, and no two of them touch.
    ranges: Vec<Network>,
}

impl Networks {
    /// The union of `networks`.
    #[must_use]
    pub fn new(mut networks: Vec<Network>) -> Self {
        networks.sort_unstable();
        let mut ranges: Vec<Network> = Vec::with_capacity(networks.len());
        for network in networks {
            match ranges.last_mut() {
                Some(before) if network.first <= before.last => {
                    before.last = before.last.max(network.last);
                }
                _ => ranges.push(network),
            }
        }
        Self { ranges }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `address` is in one of the networks.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        let after = self.ranges.partition_point(|range| range.first <= bits);
        let range = after.checked_sub(1).and_then(|at| self.ranges.get(at));
        range.is_some_and(|range| bits <= range.last)
    }
}

/// Which proxies are believed about whom they speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Proxies in these networks, however many in a row.
    pub networks: Networks,
    /// And so many nearest ones, wherever they are. 1 trusts the peer itself.
    pub hops: u8,
}

/// So many hops are looked at; a longer list comes from somebody who plays.
const MAX_HOPS: usize = 32;

impl TrustedProxies {
    /// The address of the client of a request that came from `peer`.
    ///
    /// `forwarded` are the values of `X-Forwarded-For`, all of them in order. Without
    /// trust in the peer it is the peer. An element that is not an address ends the
    /// walk: the proxy that passed it on is then the client as far as anybody knows.
    pub fn client<'a, I>(&self, peer: IpAddr, forwarded: I) -> IpAddr
    where
        I: IntoIterator<Item = &'a [u8]>,
        I::IntoIter: DoubleEndedIterator,
    {
        let mut client = canonical(peer);
        let elements = forwarded.into_iter().rev().flat_map(|value| value.rsplit(|b| *b == b','));
        for (hop, element) in elements.take(MAX_HOPS).enumerate() {
            if usize::from(self.hops) <= hop && !self.networks.contain(client) {
                break;
            }
            let Some(before) = parse_address(element) else { break };
            client = before;
        }
        client
    }
}

/// The address in a text that may have a port: `192.0.2.1`, `192.0.2.1:80`,
/// `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, with spaces around.
#[must_use]
pub fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
            .then(|| canonical(IpAddr::V6(address)));
    }
    if let Ok(address) = text.parse() {
        return Some(canonical(address));
    }
    let (address, port) = text.split_once(':')?;
    let address: core::net::Ipv4Addr = address.parse().ok()?;
    is_port(port).then_some(IpAddr::V4(address))
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// IPv4-mapped IPv6 as the IPv4 address that it is.
const fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// How many leading bits of an address make a client: a household has a whole
/// IPv6 /64, and could else come from 2⁶⁴ addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPrefix {
    v4: u8,
    v6: u8,
}

impl Default for AddressPrefix {
    /// Whole IPv4 addresses, IPv6 /64.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl AddressPrefix {
    /// The first `v4` bits of IPv4 and `v6` bits of IPv6 addresses; longer ones than
    /// there are bits mean all.
    #[must_use]
    pub const fn new(v4: u8, v6: u8) -> Self {
        Self { v4: if v4 < 32 { v4 } else { 32 }, v6: if v6 < 128 { v6 } else { 128 } }
    }

    /// The key of an address: equal for equal prefixes, never for IPv4 and IPv6.
    #[must_use]
    pub fn key(self, address: IpAddr) -> [u8; 16] {
        let address = canonical(address);
        let host = match address {
            IpAddr::V4(_) => 32 - self.v4,
            IpAddr::V6(_) => 128 - self.v6,
        };
        (bits(address) & !host_mask(u32::from(host))).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_their_addresses() {
        let nets =
            networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "10.1.0.0/16", "fe80::1"]);
        let table = [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.2.3.4", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("fe80::1", true),
            ("::", false),
        ];
        for (address, inside) in table {
            assert_eq!(nets.contain(ip(address)), inside, "{address}");
        }
        assert!(networks(&["0.0.0.0/0"]).contain(ip("1.2.3.4")));
        assert!(!networks(&["0.0.0.0/0"]).contain(ip("2001::1")));
        assert!(networks(&["::/0"]).contain(ip("2001::1")));
        assert!(!Networks::default().contain(ip("::1")));
    }

    #[test]
    fn networks_that_are_none_say_why() {
        let table = [
            ("", NetworkError::Address),
            ("10.0.0/8", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix { most: 32 }),
            ("10.0.0.0/+8", NetworkError::Prefix { most: 32 }),
            ("::/129", NetworkError::Prefix { most: 128 }),
            ("::/", NetworkError::Prefix { most: 128 }),
            ("10.0.0.1/8", NetworkError::HostBits),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
        assert_eq!(
            NetworkError::Prefix { most: 32 }.to_string(),
            "the prefix length must be 0 to 32"
        );
    }

    #[test]
    fn the_client_is_found_from_the_right_and_only_as_far_as_trust_reaches() {
        let inside = networks(&["10.0.0.0/8"]);
        // Peer, hops, networks, values of X-Forwarded-For, the client.
        let table: [(&str, u8, &Networks, &[&str], &str); 14] = [
            ("192.0.2.1", 0, &inside, &["6.6.6.6"], "192.0.2.1"),
            ("10.0.0.1", 0, &inside, &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", 0, &inside, &["6.6.6.6, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", 0, &inside, &["6.6.6.6", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", 0, &inside, &[], "10.0.0.1"),
            ("10.0.0.1", 0, &inside, &["203.0.113.9, junk"], "10.0.0.1"),
            ("10.0.0.1", 0, &inside, &["203.0.113.9, "], "10.0.0.1"),
            ("192.0.2.1", 1, &Networks::default(), &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            ("192.0.2.1", 2, &Networks::default(), &["6.6.6.6, 203.0.113.9"], "6.6.6.6"),
            ("192.0.2.1", 1, &inside, &["203.0.113.9, 10.9.9.9"], "203.0.113.9"),
            ("10.0.0.1", 0, &inside, &["10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", 0, &inside, &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", 0, &inside, &["203.0.113.9:5555"], "203.0.113.9"),
            ("::ffff:10.0.0.1", 0, &inside, &["::ffff:203.0.113.9"], "203.0.113.9"),
        ];
        for (row, (peer, hops, networks, values, client)) in table.into_iter().enumerate() {
            let proxies = TrustedProxies { networks: networks.clone(), hops };
            let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(proxies.client(ip(peer), values), ip(client), "row {row}");
        }
    }

    #[test]
    fn a_list_without_end_is_not_followed_without_end() {
        let proxies = TrustedProxies { networks: networks(&["0.0.0.0/0"]), hops: 0 };
        let mut long = vec![];
        for n in 0..10_000_u32 {
            long.extend(std::format!("10.0.{}.{},", (n >> 8) & 255, n & 255).bytes());
        }
        long.extend(b"10.9.9.9");
        let client = proxies.client(ip("10.0.0.1"), [&long[..]]);
        assert_eq!(client, ip("10.0.38.241"), "the 32nd from the right of 10000 + 1");
    }

    #[test]
    fn texts_that_are_no_address_are_none() {
        let bad: [&[u8]; 12] = [
            b"",
            b"unknown",
            b"_hidden",
            b"1.2.3",
            b"1.2.3.4:",
            b"1.2.3.4:x",
            b"[::1",
            b"[::1]x",
            b"[1.2.3.4]",
            b"::1:80:zz",
            b"\xff",
            b"\"1.2.3.4\"",
        ];
        for text in bad {
            assert_eq!(parse_address(text), None, "{text:?}");
        }
        assert_eq!(parse_address(b"127.0.0.1:53000"), Some(ip("127.0.0.1")));
        assert_eq!(parse_address(b"[::1]:53000"), Some(ip("::1")));
    }

    #[test]
    fn a_household_is_one_client() {
        let prefix = AddressPrefix::default();
        let key = |text| prefix.key(ip(text));
        assert_eq!(key("2001:db8:1:2:3::4"), key("2001:db8:1:2:ffff::"));
        assert_ne!(key("2001:db8:1:2::"), key("2001:db8:1:3::"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        let wide = AddressPrefix::new(24, 255);
        assert_eq!(wide.key(ip("192.0.2.1")), wide.key(ip("192.0.2.200")));
        assert_ne!(wide.key(ip("::1")), wide.key(ip("::2")));
        assert_ne!(
            AddressPrefix::new(0, 0).key(ip("1.1.1.1")),
            AddressPrefix::new(0, 0).key(ip("::"))
        );
    }
}
