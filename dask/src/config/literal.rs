//! Values of environment variables, read as Python's `ast.literal_eval` reads them.

use super::node::{Map, Node, Origin, Setting};

/// How deep lists and mappings may be nested.
const DEPTH_MAX: usize = 32;

/// The literal, or `None`, `null`, `true`, `false` in any case, or else the text as it is.
pub(super) fn interpret(text: &str, origin: &Origin) -> Node {
    let mut reader = Reader { rest: text.trim_matches([' ', '\t']), origin };
    let literal = reader.value(0).filter(|_| reader.at_end());
    literal.unwrap_or_else(|| {
        let setting = match text.to_lowercase().as_str() {
            "none" | "null" => Setting::Null,
            "true" => Setting::Bool(true),
            "false" => Setting::Bool(false),
            _ => Setting::Text(text.to_owned()),
        };
        Node { setting, origin: origin.clone() }
    })
}

struct Reader<'a> {
    rest: &'a str,
    origin: &'a Origin,
}

impl Reader<'_> {
    fn at_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(token);
        rest.inspect(|rest| self.rest = rest).is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_space();
        let setting = match self.rest.chars().next()? {
            '[' => Setting::List(self.items("[", "]", depth)?.0),
            '(' => self.parenthesised(depth)?,
            '{' => self.mapping(depth)?,
            '"' | '\'' => Setting::Text(self.text()?),
            _ => self.word()?,
        };
        Some(Node { setting, origin: self.origin.clone() })
    }

    /// The items, and whether a comma stood behind the last one.
    fn items(&mut self, open: &str, close: &str, depth: usize) -> Option<(Vec<Node>, bool)> {
        self.take(open).then_some(())?;
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.take(close) {
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.value(depth + 1)?);
            comma = self.take(",");
        }
        Some((items, comma))
    }

    /// A tuple; with one item and no comma only a value in parentheses.
    fn parenthesised(&mut self, depth: usize) -> Option<Setting> {
        let (mut items, comma) = self.items("(", ")", depth)?;
        if items.len() == 1 && !comma { items.pop().map(|node| node.setting) } else { Some(Setting::List(items)) }
    }

    fn mapping(&mut self, depth: usize) -> Option<Setting> {
        self.take("{").then_some(())?;
        let (mut entries, mut comma) = (Map::new(), true);
        while !self.take("}") {
            comma.then_some(())?;
            let name = self.value(depth + 1)?.setting.to_string();
            self.take(":").then_some(())?;
            entries.insert(name, self.value(depth + 1)?);
            comma = self.take(",");
        }
        Some(Setting::Map(entries))
    }

    fn text(&mut self) -> Option<String> {
        let mut characters = self.rest.char_indices();
        let (_, quote) = characters.next()?;
        let mut text = String::new();
        while let Some((at, c)) = characters.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                '\n' => return None,
                '\\' => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    'x' | 'u' | 'U' | 'N' | '0'..='7' => return None,
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
        None
    }

    fn word(&mut self) -> Option<Setting> {
        let end = self.rest.find([',', ']', ')', '}', ':', ' ']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "None" => Some(Setting::Null),
            "True" => Some(Setting::Bool(true)),
            "False" => Some(Setting::Bool(false)),
            _ => number(word),
        }
    }
}

fn number(word: &str) -> Option<Setting> {
    let digits = word.trim_start_matches(['-', '+']);
    let radix = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)];
    let negative = word.starts_with('-');
    for (prefix, radix) in radix {
        if let Some(digits) = digits.strip_prefix(prefix) {
            let number = i64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
            return Some(Setting::Int(if negative { -number } else { number }));
        }
    }
    // Python takes 0 and 00, but no other number that begins with a zero.
    let whole = digits.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if whole && digits.starts_with('0') && digits.bytes().any(|b| matches!(b, b'1'..=b'9')) {
        return None;
    }
    let float = crate::cli::parse::python_float(word)?;
    if whole && let Ok(number) = word.replace('_', "").parse() {
        return Some(Setting::Int(number));
    }
    Some(Setting::Float(float))
}
