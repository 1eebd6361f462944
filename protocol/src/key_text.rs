//! Keys as people type them: Python's `repr`, read back.

use crate::key::{KEY_DEPTH_MAX, Key};

impl Key {
    /// Reads a key that is not text from its Python form: `('sum-1a2b', 0, 1)`, `5`, `b'x'`. None for anything else,
    /// plain text too: without quotes it is a key as it is, and what looks like a number may also be text.
    ///
    /// ```
    /// use dask_protocol::Key;
    /// let key = Key::tuple([Key::from("x-1"), Key::from(0)]);
    /// assert_eq!(Key::from_literal("('x-1', 0)"), Some(key));
    /// assert_eq!(Key::from_literal("x-1"), None);
    /// ```
    pub fn from_literal(text: &str) -> Option<Key> {
        let mut reader = Reader { rest: text.trim() };
        let key = reader.key(0)?;
        reader.rest.is_empty().then_some(key)
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn key(&mut self, depth: usize) -> Option<Key> {
        match self.rest.chars().next()? {
            '(' => self.tuple(depth),
            '\'' | '"' => self.quoted().map(Key::from),
            'b' => {
                self.rest = self.rest.strip_prefix('b')?;
                // Escapes of bytes above 127 stand for themselves.
                let text = self.quoted()?;
                text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>().map(Key::bytes)
            }
            _ => self.number(),
        }
    }

    fn tuple(&mut self, depth: usize) -> Option<Key> {
        if depth >= KEY_DEPTH_MAX {
            return None;
        }
        self.skip('(')?;
        let mut parts = Vec::new();
        while self.skip(')').is_none() {
            parts.push(self.key(depth + 1)?);
            self.rest = self.rest.trim_start();
            if self.skip(',').is_none() {
                self.skip(')')?;
                // `(x)` is no tuple.
                return (parts.len() > 1).then(|| Key::tuple(parts));
            }
            self.rest = self.rest.trim_start();
        }
        Some(Key::tuple(parts))
    }

    fn skip(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    fn quoted(&mut self) -> Option<String> {
        let mut chars = self.rest.chars();
        let quote = chars.next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut text = String::new();
        loop {
            match chars.next()? {
                c if c == quote => break,
                '\\' => text.push(match chars.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'x' => {
                        let digits = chars.as_str().get(..2)?;
                        let code = u8::from_str_radix(digits, 16).ok()?;
                        chars.nth(1)?;
                        char::from(code)
                    }
                    c @ ('\\' | '\'' | '"') => c,
                    _ => return None,
                }),
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }

    fn number(&mut self) -> Option<Key> {
        let end = self.rest.find([',', ')', ' ']).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let key = if let Ok(int) = digits.parse::<i64>() {
            Key::from(int)
        } else if let Ok(int) = digits.parse::<u64>() {
            Key::from(int)
        } else {
            Key::float(digits.parse::<f64>().ok().filter(|_| digits.contains(['.', 'e']))?)
        };
        self.rest = rest;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_prints_reads_back() {
        let nested = Key::tuple([Key::from("a, (b)"), Key::tuple([Key::from(1), Key::from("it's \"x\"\n\\")])]);
        for key in [
            nested,
            Key::tuple([Key::from("one")]),
            Key::tuple([]),
            Key::from(-7),
            Key::from(u64::MAX),
            Key::float(0.5),
            Key::float(1e30),
            Key::bytes(vec![b'a', 0, 200, b'\'']),
        ] {
            assert_eq!(Key::from_literal(&format!("{key:?}")), Some(key));
        }
    }

    #[test]
    fn text_and_nonsense_are_no_literals() {
        let deep = "(".repeat(100_000);
        for text in ["", "x", "inc-1a", "(", "()x", "('a', 1", "(x, 1)", "('a')", "b", "'\\", "'\\xé'", "nan", &deep] {
            assert_eq!(Key::from_literal(text), None, "{text}");
        }
    }
}
