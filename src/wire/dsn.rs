//! Connection strings: `postgres://…` and `key=value …`, to pairs of libpq's option names and values.
//!
//! The rules are libpq's (`conninfo_parse`, `conninfo_uri_parse`). An error never repeats the string: it may hold a password.

use crate::error::{Error, ErrorKind, Result};

/// An option's name and its value, in the order in which they were written.
pub(super) type Pairs = Vec<(String, String)>;

fn bad(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("cannot read the connection string: {why}"))
        .hint("write postgres://user@host:5432/dbname?sslmode=require, or host=… port=… user=…")
}

/// Reads a connection string of either form.
pub(super) fn parse(dsn: &str) -> Result<Pairs> {
    let uri = ["postgres://", "postgresql://"].iter().find_map(|scheme| dsn.strip_prefix(scheme));
    match uri {
        Some(rest) => parse_uri(rest),
        None => parse_keywords(dsn),
    }
}

/// `host=db port = 5433 password='it\'s'`.
fn parse_keywords(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(bad("an option is not followed by \"=\""));
        };
        if key.is_empty() {
            return Err(bad("there is a value without a name"));
        }
        let (value, after) = keyword_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// One value, bare or quoted, and what follows it. A backslash takes the next character as it is, in both.
fn keyword_value(text: &str) -> Result<(String, &str)> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, body.get(at + 1..).unwrap_or_default())),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, body.get(at..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    if quoted { Err(bad("a quoted value does not end")) } else { Ok((value, "")) }
}

/// What follows `postgres://`: `user:password@host:port,host:port/dbname?key=value&…`, every part optional.
fn parse_uri(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let (text, parameters) = text.split_once('?').unwrap_or((text, ""));
    let end = text.find(['@', '/']).unwrap_or(text.len());
    let mut hosts = text;
    if text.get(end..).is_some_and(|rest| rest.starts_with('@')) {
        let (user, rest) = (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
        let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
        push_decoded(&mut pairs, "user", user)?;
        push_decoded(&mut pairs, "password", password.unwrap_or_default())?;
        hosts = rest;
    }
    let (hosts, database) = hosts.split_once('/').unwrap_or((hosts, ""));
    push_hosts(&mut pairs, hosts)?;
    push_decoded(&mut pairs, "dbname", database)?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(bad("a parameter behind \"?\" has no \"=\""));
        };
        match (decode(key)?.as_str(), decode(value)?) {
            // JDBC's spelling, which libpq accepts too.
            ("ssl", value) if value == "true" => pairs.push(("sslmode".into(), "require".into())),
            (key, value) => pairs.push((key.to_owned(), value)),
        }
    }
    Ok(pairs)
}

fn push_decoded(pairs: &mut Pairs, key: &str, value: &str) -> Result<()> {
    if !value.is_empty() {
        pairs.push((key.to_owned(), decode(value)?));
    }
    Ok(())
}

/// The comma-separated hosts, each `name`, `name:port`, `[v6]`, `[v6]:port` or `:port`.
fn push_hosts(pairs: &mut Pairs, text: &str) -> Result<()> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in text.split(',') {
        let (name, port) = if let Some(v6) = host.strip_prefix('[') {
            let (name, rest) = v6.split_once(']').ok_or_else(|| bad("an IPv6 address lacks its closing \"]\""))?;
            let port = match rest.strip_prefix(':') {
                Some(port) => port,
                None if rest.is_empty() => "",
                None => return Err(bad("there is something between \"]\" and the port")),
            };
            (name, port)
        } else {
            host.split_once(':').unwrap_or((host, ""))
        };
        let (name, port) = (decode(name)?, decode(port)?);
        // Most often the rest of a password, which no later message may repeat.
        if name.contains('@') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad("host or port is none").hint(
                "in a URI, write the characters @ : / ? # and % of user and password as %40 %3A %2F %3F %23 %25",
            ));
        }
        names.push(name);
        ports.push(port);
    }
    for (key, values) in [("host", names), ("port", ports)] {
        if values.iter().any(|value| !value.is_empty()) {
            pairs.push((key.to_owned(), values.join(",")));
        }
    }
    Ok(())
}

/// Undoes percent encoding. A plus sign stays one, as in libpq.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, after @ ..] = tail else { return Err(bad("a \"%\" is not followed by two digits")) };
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                return Err(bad("a \"%\" is not followed by two hexadecimal digits"));
            };
            let byte = u8::try_from(high * 16 + low).unwrap_or(0);
            if byte == 0 {
                return Err(bad("%00 is not allowed"));
            }
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 once decoded"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn joined(dsn: &str) -> String {
        let pairs = parse(dsn).unwrap();
        pairs.iter().map(|(key, value)| format!("{key}<{value}>")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_forms() {
        for (dsn, expected) in [
            ("", ""),
            ("host=db", "host<db>"),
            ("  host = db   port=5433 ", "host<db> port<5433>"),
            (r"password='it\'s a \\ b' user=u", r"password<it's a \ b> user<u>"),
            (r"password=a\ b user=''", "password<a b> user<>"),
            ("postgres://", ""),
            ("postgresql:///", ""),
            ("postgres://u@h", "user<u> host<h>"),
            (
                "postgres://u%40x:p%3A%2Fw@h:1/d%20b?sslmode=verify-full&application_name=a%26b",
                "user<u@x> password<p:/w> host<h> port<1> dbname<d b> sslmode<verify-full> application_name<a&b>",
            ),
            ("postgres://[::1]:5433,[fe80::1]/d", "host<::1,fe80::1> port<5433,> dbname<d>"),
            ("postgres://a:1,b,c:3/", "host<a,b,c> port<1,,3>"),
            ("postgres://%2Fvar%2Frun%2Fpostgresql/d", "host</var/run/postgresql> dbname<d>"),
            ("postgres:///d?host=/tmp&port=5433", "dbname<d> host</tmp> port<5433>"),
            ("postgres://h?ssl=true", "host<h> sslmode<require>"),
            ("postgres://:5433", "port<5433>"),
            ("postgres://u:@h/", "user<u> host<h>"),
            ("postgres://h/a+b", "host<h> dbname<a+b>"),
        ] {
            assert_eq!(joined(dsn), expected, "{dsn}");
        }
    }

    #[test]
    fn refused_without_repeating_secrets() {
        for dsn in [
            "secret",
            "host secret",
            "=secret",
            "password='secret",
            "postgres://u:secret%zz@h",
            "postgres://u:secret%@h",
            "postgres://u:secret%00@h",
            "postgres://u:secret@[::1",
            "postgres://u:secret@[::1]x",
            "postgres://u:secret@h?sslmode",
            "postgres://u:secret%ff@h",
        ] {
            let error = parse(dsn).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
