//! What a plain word of YAML means, by the rules of PyYAML, which follows YAML 1.1: `yes` and `off` are truth values, and
//! `1e3` without a point is a text.

use super::node::Setting;

/// The value of a word without quotes.
pub(super) fn resolve(text: &str) -> Setting {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Setting::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Setting::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Setting::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Setting::Float(f64::NAN),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Setting::Int(number);
    }
    float(text).map_or_else(|| Setting::Text(text.to_owned()), Setting::Float)
}

fn signed(text: &str) -> (i64, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    }
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = signed(text);
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        [first, ..] if first.is_ascii_digit() => (10, digits),
        _ => return None,
    };
    let plain = digits.replace('_', "");
    let number = i64::from_str_radix(&plain, radix).ok().filter(|_| !plain.starts_with(['-', '+']))?;
    number.checked_mul(sign)
}

fn float(text: &str) -> Option<f64> {
    let (sign, rest) = signed(text);
    #[expect(clippy::cast_precision_loss, reason = "it is one or minus one")]
    let sign = sign as f64;
    if matches!(rest, ".inf" | ".Inf" | ".INF") {
        return Some(sign * f64::INFINITY);
    }
    let (mantissa, exponent) = rest.split_once(['e', 'E']).map_or((rest, None), |(m, e)| (m, Some(e)));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let (whole, fraction) = mantissa.split_once('.')?;
    let some = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|e| e.strip_prefix(['+', '-']).is_some_and(|e| some(e) && digits(e)));
    if !digits(whole) || !digits(fraction) || !(some(whole) || some(fraction)) || !exponent_fits {
        return None;
    }
    rest.replace('_', "").parse::<f64>().ok().map(|number| sign * number)
}
