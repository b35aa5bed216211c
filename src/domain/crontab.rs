//! The forms in which people write cron expressions, brought into the one the cron library reads.

/// An expression as fields of the cron library: seconds first, Sunday is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Normalized {
    /// One, or two of which either counts.
    pub expressions: Vec<String>,
    /// Whether its hour begins with `*`: it means intervals and not times of day.
    pub every_hour: bool,
}

/// Brings an expression into that form; the error says what is wrong with it.
///
/// Five fields are crontab's: weekdays count from 0 for Sunday (7 is Sunday too), and when both day of
/// month and weekday are restricted either is enough. Six or seven fields begin with the second and are
/// taken as the library has them: weekdays count from 1 for Sunday, and every field must match.
pub(super) fn normalize(expression: &str) -> Result<Normalized, String> {
    let expression = match expression.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let fields: Vec<&str> = expression.split_whitespace().collect();
    match fields[..] {
        [minute, hour, day, month, weekday] => {
            let weekday = weekdays(weekday)?;
            let free = |field: &str| field.starts_with(['*', '?']);
            let both = !free(day) && !free(&weekday);
            let days =
                if both { vec![(day, "*"), ("*", &*weekday)] } else { vec![(day, &*weekday)] };
            let line = |(day, weekday): &(&str, &str)| {
                format!("0 {minute} {hour} {day} {month} {weekday}")
            };
            let expressions = days.iter().map(line).collect();
            Ok(Normalized { expressions, every_hour: hour.starts_with('*') })
        }
        [_, _, hour, _, _, _] | [_, _, hour, _, _, _, _] => {
            let expressions = vec![fields.join(" ")];
            Ok(Normalized { expressions, every_hour: hour.starts_with('*') })
        }
        _ => Err(format!("it has {} fields", fields.len())),
    }
}

/// A weekday field of crontab as the library counts.
fn weekdays(field: &str) -> Result<String, String> {
    if field == "*" || field == "?" {
        return Ok("*".to_owned());
    }
    let wrong = || format!("weekday {field:?} is none: 0 to 7 or SUN to SAT");
    let mut days = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)),
            None => (item, Some(1)),
        };
        let step: usize = step.ok_or_else(wrong)?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((first, last)) => {
                (weekday(first).ok_or_else(wrong)?, weekday(last).ok_or_else(wrong)?)
            }
            None => {
                let day = weekday(range).ok_or_else(wrong)?;
                (day, if item.contains('/') { 6.max(day) } else { day })
            }
        };
        // A range over the end of the week: FRI-SUN.
        let last = if last < first { last + 7 } else { last };
        (first..=last).step_by(step).for_each(|day| days[day % 7] = true);
    }
    let named = days.iter().zip(1..).filter(|(set, _)| **set).map(|(_, day): (_, usize)| day);
    Ok(named.map(|day| day.to_string()).collect::<Vec<_>>().join(","))
}

fn weekday(text: &str) -> Option<usize> {
    const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let number = || text.parse().ok().filter(|day| *day <= 7);
    NAMES.iter().position(|name| text.eq_ignore_ascii_case(name)).or_else(number)
}

#[cfg(test)]
mod tests {
    use super::normalize;

    fn lines(expression: &str) -> String {
        normalize(expression).unwrap().expressions.join(" | ")
    }

    #[test]
    fn weekdays_of_crontab_keep_their_meaning() {
        for (crontab, library) in [
            ("0 9 * * 1-5", "0 0 9 * * 2,3,4,5,6"),
            ("0 9 * * 0", "0 0 9 * * 1"),
            ("0 9 * * 7", "0 0 9 * * 1"),
            ("0 9 * * 5-7", "0 0 9 * * 1,6,7"),
            ("0 9 * * fri-mon", "0 0 9 * * 1,2,6,7"),
            ("0 9 * * */2", "0 0 9 * * 1,3,5,7"),
            ("0 9 * * mon,3/2", "0 0 9 * * 2,4,6"),
            ("@weekly", "0 0 0 * * 1"),
            ("0 9 1,15 * 1", "0 0 9 1,15 * * | 0 0 9 * * 2"),
            (" 5  4 3 2 * ", "0 5 4 3 2 *"),
        ] {
            assert_eq!(lines(crontab), library, "{crontab}");
        }
    }

    #[test]
    fn longer_forms_are_the_library_s_own() {
        assert_eq!(lines("1 2 3 4 5 MON"), "1 2 3 4 5 MON");
        assert_eq!(lines("1 2 3 4 5 2 2030"), "1 2 3 4 5 2 2030");
        assert!(normalize("*/5 * * * *").unwrap().every_hour);
        assert!(!normalize("5 0 * * *").unwrap().every_hour);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(normalize("* * *").unwrap_err(), "it has 3 fields");
        for weekday in ["8", "1-9", "MOON", "1/0", "", "-1"] {
            assert!(super::weekdays(weekday).unwrap_err().contains("0 to 7"), "{weekday}");
        }
    }
}
