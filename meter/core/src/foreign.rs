//! Errors of an engine, or of a server around it, that have not the shape that
//! clients read: the same as `Reshape` of the Go package `internal/openai`.

use crate::json::Value;

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 1 << 10;

/// Gives an engine's error body the shape that clients read, Anthropic's or
/// OpenAI's. None where it has one already (`{"error": {"message": …}}`), and for
/// anything that is no JSON object. What a server around vLLM says is such a
/// body: `{"detail": "Not Found"}` for a route that its model does not have.
pub fn reshape(anthropic: bool, status: u16, body: &[u8]) -> Option<Vec<u8>> {
    let said = Value::parse(body)?;
    if !matches!(said, Value::Object(_)) || matches!(said.get("error"), Some(Value::Object(_))) {
        return None;
    }
    let (kind, code) = match status {
        404 => ("invalid_request_error", "not_found"),
        405 => ("invalid_request_error", "method_not_allowed"),
        429 => ("rate_limit_error", "rate_limit_exceeded"),
        500.. => ("server_error", "engine_unavailable"),
        _ => ("invalid_request_error", "invalid_request"),
    };
    let text = text_of(&said).unwrap_or_else(|| status_text(status));
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut message = format!("The model server answered: {text}.");
    if status == 404 || status == 405 {
        message.push_str(" Its model may not support this route.");
    }
    Some(answer(anthropic, &message, kind, code).into_bytes())
}

/// The sentence in such a body.
fn text_of(said: &Value) -> Option<&str> {
    ["detail", "error", "message"]
        .iter()
        .filter_map(|name| match said.get(name)? {
            Value::Text(text) => Some(text.as_str()),
            Value::List(list) => first_message(list),
            _ => None,
        })
        .find(|text| !text.is_empty())
}

/// The message of the first element, where all of them may have one.
fn first_message(list: &[Value]) -> Option<&str> {
    let fits = |v: &Value| match v {
        Value::Null => true,
        Value::Object(_) => matches!(v.get("msg"), None | Some(Value::Null | Value::Text(_))),
        _ => false,
    };
    if !list.iter().all(fits) {
        return None;
    }
    match list.first()?.get("msg")? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn answer(anthropic: bool, message: &str, kind: &str, code: &str) -> String {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let message = &message[..end];
    if !anthropic {
        let mut out = String::from(r#"{"error":{"message":"#);
        quote(&mut out, message);
        out.push_str(&format!(
            r#","type":"{kind}","param":null,"code":"{code}"}}}}"#
        ));
        return out;
    }
    let kind = match (code, kind) {
        ("not_found", _) => "not_found_error",
        ("engine_unavailable", _) => "overloaded_error",
        (_, "rate_limit_error") => "rate_limit_error",
        (_, "server_error") => "api_error",
        _ => "invalid_request_error",
    };
    let mut out = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"#);
    quote(&mut out, message);
    out.push_str("}}");
    out
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// What a status means, in HTTP's words; nothing for one that HTTP does not know.
fn status_text(status: u16) -> &'static str {
    match status {
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}
