//! Dates for templates: the part of C's `strftime` that chat templates use, in UTC.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From Thursday, the day of the week of 1970-01-01.
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// The time `unix_seconds` as `format` says: `%Y %y %m %d %e %B %b %A %a %H %I %M %S %p %j %F %T
/// %%`, and `-` after the percent sign for no padding.
///
/// # Errors
/// The directive that is not one of these.
pub(super) fn strftime(unix_seconds: i64, format: &str) -> Result<String, String> {
    let days = unix_seconds.div_euclid(86_400);
    let second_of_day = unix_seconds.rem_euclid(86_400);
    let (hour, minute, second) = (
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    let (year, month, day) = civil_from_days(days);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[days.rem_euclid(7) as usize];
    let hour_of_12 = (hour + 11) % 12 + 1;

    let mut text = String::with_capacity(format.len() * 2);
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = rest.next();
        let padded = directive != Some('-');
        if !padded {
            directive = rest.next();
        }
        let number = |value: i64, width: usize| {
            if padded {
                format!("{value:0width$}")
            } else {
                value.to_string()
            }
        };
        let part = match directive {
            Some('Y') => year.to_string(),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') if padded => format!("{day:2}"),
            Some('e') => day.to_string(),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => number(hour, 2),
            Some('I') => number(hour_of_12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('j') => number(days - days_from_civil_new_year(year) + 1, 3),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_owned(),
            other => return Err(other.map_or("%".to_owned(), |directive| format!("%{directive}"))),
        };
        text.push_str(&part);
    }
    Ok(text)
}

/// Year, month and day of a day counted from 1970-01-01 in the Gregorian calendar, by Howard
/// Hinnant's `civil_from_days`: years that begin in March put the leap day last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day of `year`'s first of January, counted from 1970-01-01.
fn days_from_civil_new_year(year: i64) -> i64 {
    let before = year - 1;
    365 * before + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_c_does() {
        let all = "%Y %y %m %d %e %B %b %A %a %H %I %M %S %p %j %F %T %%";
        for (seconds, text) in [
            (
                0,
                "1970 70 01 01  1 January Jan Thursday Thu 00 12 00 00 AM 001 1970-01-01 00:00:00 %",
            ),
            (
                951_868_799,
                "2000 00 02 29 29 February Feb Tuesday Tue 23 11 59 59 PM 060 2000-02-29 23:59:59 %",
            ),
            (
                1_721_998_800,
                "2024 24 07 26 26 July Jul Friday Fri 13 01 00 00 PM 208 2024-07-26 13:00:00 %",
            ),
            (
                -1,
                "1969 69 12 31 31 December Dec Wednesday Wed 23 11 59 59 PM 365 1969-12-31 23:59:59 %",
            ),
        ] {
            assert_eq!(strftime(seconds, all).unwrap(), text);
        }
        assert_eq!(strftime(0, "%-d %B, %-I").unwrap(), "1 January, 12");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(strftime(0, "%Q"), Err("%Q".to_owned()));
        assert_eq!(strftime(0, "at %"), Err("%".to_owned()));
    }

    #[test]
    fn days_follow_each_other() {
        let mut previous = civil_from_days(-800_000);
        for day in -799_999..800_000 {
            let (year, month, date) = civil_from_days(day);
            let next = (previous.0, previous.1, previous.2 + 1);
            let first = date == 1 && (previous.2 >= 28);
            assert!(
                (year, month, date) == next || first,
                "{previous:?} then {:?}",
                (year, month, date)
            );
            if (month, date) == (1, 1) {
                assert_eq!(days_from_civil_new_year(year), day);
            }
            previous = (year, month, date);
        }
    }
}
