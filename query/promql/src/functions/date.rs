//! Dates in UTC from seconds since the epoch (Gregorian, H. Hinnant's day count).

use crate::function::DateField;

/// Part of the date at `seconds`; fractions are cut off towards zero, as by Go's conversion.
pub(crate) fn field(field: DateField, seconds: f64) -> f64 {
    let seconds = seconds as i64;
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    let value = match field {
        DateField::DayOfMonth => day,
        DateField::DayOfWeek => (days + 4).rem_euclid(7),
        DateField::DayOfYear => days - days_before(year, 1, 1) + 1,
        DateField::DaysInMonth => {
            let (next_year, next) = if month == 12 {
                (year + 1, 1)
            } else {
                (year, month + 1)
            };
            days_before(next_year, next, 1) - days_before(year, month, 1)
        }
        DateField::Hour => second_of_day / 3600,
        DateField::Minute => second_of_day / 60 % 60,
        DateField::Month => month,
        DateField::Year => year,
    };
    value as f64
}

/// Year, month (1..=12) and day (1..=31) of a number of days since the epoch.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days from the epoch to a date.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let check = |seconds: f64, expected: [f64; 8]| {
            use DateField::*;
            let fields = [
                Year,
                Month,
                DayOfMonth,
                DayOfWeek,
                DayOfYear,
                DaysInMonth,
                Hour,
                Minute,
            ];
            assert_eq!(fields.map(|f| field(f, seconds)), expected, "at {seconds}");
        };
        check(0.0, [1970.0, 1.0, 1.0, 4.0, 1.0, 31.0, 0.0, 0.0]);
        // 2024-02-29 23:59:59 and one second before the epoch.
        check(
            1_709_251_199.0,
            [2024.0, 2.0, 29.0, 4.0, 60.0, 29.0, 23.0, 59.0],
        );
        check(-1.0, [1969.0, 12.0, 31.0, 3.0, 365.0, 31.0, 23.0, 59.0]);
    }
}
