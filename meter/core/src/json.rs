//! A short JSON text as a whole. Answers are never read with it, see `document`:
//! it is for the error bodies of what stands around an engine.

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 100;

/// A JSON value. Numbers and literals say no more than that they are some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Other,
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Reads a text that is one JSON value and nothing else.
    pub(crate) fn parse(text: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(text).ok()?;
        let mut p = Parser {
            text: text.as_bytes(),
            at: 0,
        };
        let value = p.value(0)?;
        p.space();
        (p.at == text.len()).then_some(value)
    }

    /// The member of an object; none where it is no object, or has no such key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes what comes next, white space aside, where it is `want`.
    fn take(&mut self, want: &[u8]) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(want);
        if found {
            self.at += want.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.text.get(self.at)? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Value::Text),
            b'n' => self.take(b"null").then_some(Value::Null),
            b't' => self.take(b"true").then_some(Value::Other),
            b'f' => self.take(b"false").then_some(Value::Other),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        let mut members: Vec<(String, Value)> = Vec::new();
        if self.take(b"}") {
            return Some(Value::Object(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            if !self.take(b":") || members.iter().any(|(k, _)| *k == key) {
                return None; // of two members of one name nobody knows which is meant
            }
            let value = self.value(depth + 1)?;
            members.push((key, value));
            if self.take(b"}") {
                return Some(Value::Object(members));
            }
            if !self.take(b",") {
                return None;
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        let mut elements = Vec::new();
        if self.take(b"]") {
            return Some(Value::List(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.take(b"]") {
                return Some(Value::List(elements));
            }
            if !self.take(b",") {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        if self.text.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let c = *self.text.get(self.at)?;
            self.at += 1;
            match c {
                b'"' => return String::from_utf8(out).ok(),
                b'\\' => self.escape(&mut out)?,
                0..=0x1f => return None,
                _ => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let c = *self.text.get(self.at)?;
        self.at += 1;
        let plain = match c {
            b'"' | b'\\' | b'/' => c,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let c = self.unicode()?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        out.push(plain);
        Some(())
    }

    /// The character of a `\u`, and of the second one that its first half needs.
    fn unicode(&mut self) -> Option<char> {
        let unit = self.hex()?;
        if !(0xd800..0xdc00).contains(&unit) {
            return char::from_u32(unit); // none for a second half alone
        }
        if !self.text[self.at..].starts_with(b"\\u") {
            return None;
        }
        self.at += 2;
        let low = self.hex().filter(|u| (0xdc00..0xe000).contains(u))?;
        char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits
            .iter()
            .try_fold(0, |n, d| Some(n << 4 | char::from(*d).to_digit(16)?))
    }

    fn digits(&mut self) -> usize {
        let rest = &self.text[self.at..];
        let n = rest.iter().take_while(|c| c.is_ascii_digit()).count();
        self.at += n;
        n
    }

    fn one_of(&mut self, want: &[u8]) -> bool {
        let found = self.text.get(self.at).is_some_and(|c| want.contains(c));
        self.at += usize::from(found);
        found
    }

    fn number(&mut self) -> Option<Value> {
        self.one_of(b"-");
        let zero = self.text.get(self.at) == Some(&b'0');
        let whole = self.digits();
        if whole == 0 || zero && whole > 1 {
            return None;
        }
        if self.one_of(b".") && self.digits() == 0 {
            return None;
        }
        if self.one_of(b"eE") {
            self.one_of(b"+-");
            if self.digits() == 0 {
                return None;
            }
        }
        Some(Value::Other)
    }
}
