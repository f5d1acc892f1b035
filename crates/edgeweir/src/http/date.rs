//! HTTP dates (RFC 9110 section 5.6.7), in the three forms that a recipient must read.
//!
//! Names of days and months, and "GMT", are matched without case, and any other zone
//! makes a date invalid: both as RFC 9111 section 4.2 asks of caches.

use alloc::format;
use alloc::string::String;

use crate::time::UnixTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Reads a date; `now` decides the century of a two-digit year. A date before 1970
/// is 1970.
///
/// `None` for whatever is not exactly one of the forms, or no day of the calendar.
#[must_use]
pub fn parse(text: &[u8], now: UnixTime) -> Option<UnixTime> {
    let text = core::str::from_utf8(text).ok()?;
    match text.split_once(", ") {
        // Sun, 06 Nov 1994 08:49:37 GMT
        Some((day, rest)) if index(&DAYS, day).is_some() => {
            let (date, time) = rest.split_at_checked(12)?;
            let (d, rest) = date.split_once(' ')?;
            let (m, y) = rest.split_once(' ')?;
            let year = digits(y.strip_suffix(' ')?, 4)?;
            moment(year, index(&MONTHS, m)?, digits(d, 2)?, gmt(time)?)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        Some((day, rest)) if index(&LONG_DAYS, day).is_some() => {
            let (date, time) = rest.split_at_checked(10)?;
            let (d, rest) = date.split_once('-')?;
            let (m, y) = rest.split_once('-')?;
            let (year, _, _) = civil(now.as_secs() / 86_400);
            let short = digits(y.strip_suffix(' ')?, 2)?;
            let mut full = year - year % 100 + short;
            // More than 50 years ahead means the last such year that has passed.
            if year + 50 < full {
                full -= 100;
            }
            moment(full, index(&MONTHS, m)?, digits(d, 2)?, gmt(time)?)
        }
        Some(_) => None,
        // Sun Nov  6 08:49:37 1994
        None => {
            let (day, rest) = text.split_once(' ')?;
            index(&DAYS, day)?;
            let (m, rest) = rest.split_once(' ')?;
            let (d, rest) = rest.split_at_checked(2)?;
            let (t, y) = rest.strip_prefix(' ')?.split_once(' ')?;
            let day = match d.strip_prefix(' ') {
                Some(digit) => digits(digit, 1)?,
                None => digits(d, 2)?,
            };
            moment(digits(y, 4)?, index(&MONTHS, m)?, day, time(t)?)
        }
    }
}

/// Writes a date in the preferred form: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn format(time: UnixTime) -> String {
    let secs = time.as_secs();
    let (days, clock) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    // 1970-01-01 was a Thursday.
    let name = |names: &[&'static str], at: u64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&DAYS, (days + 3) % 7),
        name(&MONTHS, month),
        clock / 3600,
        clock / 60 % 60,
        clock % 60,
    )
}

fn index(names: &[&str], name: &str) -> Option<u64> {
    let at = names.iter().position(|other| other.eq_ignore_ascii_case(name))?;
    u64::try_from(at).ok()
}

fn digits(text: &str, count: usize) -> Option<u64> {
    let digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `08:49:37 GMT`, in seconds.
fn gmt(text: &str) -> Option<u64> {
    let (clock, zone) = text.split_once(' ')?;
    if zone.eq_ignore_ascii_case("GMT") { time(clock) } else { None }
}

fn time(text: &str) -> Option<u64> {
    let (hour, rest) = text.split_once(':')?;
    let (minute, second) = rest.split_once(':')?;
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    // 60 is a leap second.
    let valid = hour < 24 && minute < 60 && second <= 60;
    valid.then_some(hour * 3600 + minute * 60 + second)
}

/// The moment of a day (`month` from 0) and the seconds in it.
fn moment(year: u64, month: u64, day: u64, seconds: u64) -> Option<UnixTime> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        1 if leap => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Days since 0000-03-01, by Hinnant's "days from civil": the leap day comes last.
    let (y, m) = if month < 2 { (year.checked_sub(1)?, month + 10) } else { (year, month - 2) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + (day - 1);
    Some(UnixTime::from_secs(days.saturating_sub(719_468) * 86_400 + seconds))
}

/// Year, month (from 0) and day of the month of a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
    (era * 400 + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixTime = UnixTime::from_secs(1_795_000_000);

    fn check(text: &str) -> Option<u64> {
        parse(text.as_bytes(), NOW).map(UnixTime::as_secs)
    }

    #[test]
    fn rfc_9110_5_6_7_the_three_forms_are_one_moment() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sun, 06 NOV 1994 08:49:37 gmt",
        ] {
            assert_eq!(check(text), Some(784_111_777), "{text}");
        }
        assert_eq!(format(UnixTime::from_secs(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn rfc_9110_5_6_7_a_two_digit_year_is_at_most_fifty_years_ahead() {
        assert_eq!(check("Friday, 06-Nov-76 08:49:37 GMT"), check("Fri, 06 Nov 2076 08:49:37 GMT"));
        assert_eq!(check("Sunday, 06-Nov-77 08:49:37 GMT"), check("Sun, 06 Nov 1977 08:49:37 GMT"));
    }

    #[test]
    fn rfc_9111_4_2_what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "garbage",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1995 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 94",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(check(text), None, "{text}");
        }
        assert_eq!(parse(b"\xff\xfe", NOW), None);
    }

    #[test]
    fn years_at_the_ends_saturate() {
        assert_eq!(check("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(check("Sun, 06 Nov 0000 08:49:37 GMT"), Some(31_777));
        assert!(check("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
    }

    proptest! {
        #[test]
        fn every_second_reads_as_it_is_written(secs in 0_u64..18_000_000_000) {
            let text = format(UnixTime::from_secs(secs));
            prop_assert_eq!(check(&text), Some(secs), "{}", text);
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text, NOW);
        }
    }
}
