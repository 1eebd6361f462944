//! Durations as dask's users write them: `"100 ms"`, `"60s"`, `2.5`.

use dask_protocol::Value;

/// Seconds in each unit, by the names `dask.utils.parse_timedelta` knows.
const UNITS: [(&str, f64); 16] = [
    ("s", 1.0),
    ("ms", 1e-3),
    ("us", 1e-6),
    ("ns", 1e-9),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
    ("second", 1.0),
    ("minute", 60.0),
    ("hour", 3600.0),
    ("day", 86_400.0),
    ("week", 604_800.0),
    ("millisecond", 1e-3),
    ("microsecond", 1e-6),
    ("nanosecond", 1e-9),
];

/// The seconds that `value` stands for: a number, or a number with a unit (seconds if there is none). `None` when it is
/// neither.
pub fn parse_timedelta(value: &Value) -> Option<f64> {
    match value {
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => value.as_f64(),
        Value::Str(text) => parse_text(text),
        Value::Nil
        | Value::Bool(_)
        | Value::Bin(_)
        | Value::Array(_)
        | Value::Map(_)
        | Value::Set(_)
        | Value::Enum(_)
        | Value::Payload(_) => None,
    }
}

fn parse_text(text: &str) -> Option<f64> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if text.is_empty() {
        return None;
    }
    let unit_at = text.rfind(|c: char| !c.is_alphabetic()).map_or(0, |at| at + 1);
    let (number, unit) = text.split_at_checked(unit_at)?;
    let number = if number.is_empty() { 1.0 } else { number.parse().ok()? };
    let unit = if unit.is_empty() { "s" } else { unit };
    let singular = unit.strip_suffix('s').filter(|singular| singular.len() > 2).unwrap_or(unit);
    UNITS.iter().find(|(name, _)| *name == singular).map(|(_, seconds)| number * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dasks() {
        for (text, seconds) in [
            ("100 ms", 0.1),
            ("60s", 60.0),
            ("3", 3.0),
            ("2.5 minutes", 150.0),
            ("1e3us", 1e-3),
            ("hour", 3600.0),
            ("3 DAYS", 259_200.0),
        ] {
            let parsed = parse_timedelta(&text.into()).expect(text);
            assert!((parsed - seconds).abs() < 1e-9, "{text}: {parsed}");
        }
        assert_eq!(parse_timedelta(&Value::Int(5)), Some(5.0));
        assert_eq!(parse_timedelta(&Value::Float(0.5)), Some(0.5));
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "5 parsecs", "x5s", "é"] {
            assert_eq!(parse_timedelta(&text.into()), None, "{text}");
        }
        assert_eq!(parse_timedelta(&Value::Nil), None);
    }
}
