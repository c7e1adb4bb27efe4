//! A command line as Postgres expands it and as the shell reads it. Pure.

use std::path::Path;

/// How deep shells in shells are followed.
const DEPTH: usize = 3;

/// A command line with its placeholders replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// Placeholders that were replaced, `%%` left out.
    pub(super) used: Vec<char>,
    /// What looks like one and is none: `%x`, or `%` at the end. From 16 on refused, before passed through.
    pub(super) unknown: Vec<String>,
}

/// Replaces these placeholders, and `%%`.
pub(super) fn expand(text: &str, known: &[(char, &str)]) -> Expanded {
    let mut expanded = Expanded { text: String::new(), used: Vec::new(), unknown: Vec::new() };
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            expanded.text.push(c);
            continue;
        }
        let next = rest.next();
        match (next, next.and_then(|next| known.iter().find(|(name, _)| *name == next))) {
            (_, Some((name, value))) => {
                expanded.text.push_str(value);
                expanded.used.push(*name);
            }
            (Some('%'), None) => expanded.text.push('%'),
            (next, None) => {
                let as_it_is: String = ['%'].into_iter().chain(next).collect();
                expanded.text.push_str(&as_it_is);
                expanded.unknown.push(as_it_is);
            }
        }
    }
    expanded
}

/// A piece of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// What ends a simple command: `;`, `&`, `|`, `&&`, `||`, a parenthesis or a line break.
    Control(String),
    /// The next word is a file, not an argument.
    Redirect,
}

/// What a command line does, as far as it concerns one of our programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The program's word, as it stands there; `None` where it is not called.
    pub(super) program: Option<String>,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// What is called first.
    pub(super) first: Option<String>,
    /// Whether what stands behind it may turn its failure into a success.
    pub(super) hides_failure: bool,
}

/// Looks for a call of the program of this name.
pub(super) fn read(text: &str, program: &str) -> Line {
    read_at(text, program, DEPTH)
}

fn read_at(text: &str, program: &str, depth: usize) -> Line {
    let tokens = tokens(text);
    let words: Vec<(usize, &str)> = tokens
        .iter()
        .enumerate()
        .filter_map(|(at, token)| match token {
            Token::Word(word) => Some((at, word.as_str())),
            _ => None,
        })
        .collect();
    let first = words.iter().map(|(_, word)| *word).find(|word| !is_assignment(word)).map(str::to_owned);
    if let Some((at, word)) = words.iter().find(|(_, word)| is_called(word, program)) {
        let after = tokens.get(at + 1..).unwrap_or_default();
        let end = after.iter().position(|token| matches!(token, Token::Control(_))).unwrap_or(after.len());
        let (own, rest) = after.split_at(end);
        return Line {
            program: Some((*word).to_owned()),
            arguments: arguments(own),
            first,
            hides_failure: hides_failure(rest),
        };
    }
    // sh -c '…'
    let inner = words.windows(2).find_map(|pair| match pair {
        [(_, "-c" | "-ec" | "-lc"), (_, inner)] if depth > 0 => Some(read_at(inner, program, depth - 1)),
        _ => None,
    });
    match inner {
        Some(inner) if inner.program.is_some() => inner,
        _ => Line { program: None, arguments: Vec::new(), first, hides_failure: false },
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

fn is_called(word: &str, program: &str) -> bool {
    Path::new(word).file_name().is_some_and(|name| name == program)
}

fn arguments(tokens: &[Token]) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut tokens = tokens.iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => arguments.push(word.clone()),
            // Its file.
            Token::Redirect => drop(tokens.next()),
            Token::Control(_) => {}
        }
    }
    arguments
}

/// Whether the line can succeed although the program failed: `; true`, `|| true`, `| tee`, `&`.
fn hides_failure(rest: &[Token]) -> bool {
    for (at, token) in rest.iter().enumerate() {
        let after = rest.get(at + 1..).unwrap_or_default();
        match token {
            Token::Control(control) if control == "&" => return true,
            Token::Control(control) if control == "||" => return !fails(after),
            Token::Control(control) if control == "|" => return true,
            Token::Control(control) if matches!(control.as_str(), ";" | "\n") => {
                return after.iter().any(|token| matches!(token, Token::Word(_)));
            }
            _ => {}
        }
    }
    false
}

/// `exit 1`, `false`: what certainly fails.
fn fails(tokens: &[Token]) -> bool {
    match tokens {
        [Token::Word(word), ..] if word == "false" => true,
        [Token::Word(word), Token::Word(status), ..] if word == "exit" => status.parse::<u8>().is_ok_and(|n| n != 0),
        _ => false,
    }
}

/// Cuts a line into words and operators, as `sh` does. Variables and command substitutions are left as they are.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => word.get_or_insert_default().extend(rest.by_ref().take_while(|c| *c != '\'')),
            '"' => double_quoted(&mut rest, word.get_or_insert_default()),
            '\\' => word.get_or_insert_default().extend(rest.next()),
            ' ' | '\t' => tokens.extend(word.take().map(Token::Word)),
            '#' if word.is_none() => drop(rest.by_ref().find(|c| *c == '\n')),
            '<' | '>' => {
                // `2>`: the number is no word.
                let number = word.take_if(|word| word.chars().all(|c| c.is_ascii_digit()));
                tokens.extend(word.take().filter(|_| number.is_none()).map(Token::Word));
                while rest.next_if(|c| matches!(c, '<' | '>' | '&' | '|')).is_some() {}
                tokens.push(Token::Redirect);
            }
            ';' | '&' | '|' | '(' | ')' | '\n' => {
                tokens.extend(word.take().map(Token::Word));
                let twice = matches!(c, '&' | '|') && rest.next_if_eq(&c).is_some();
                tokens.push(Token::Control(if twice { [c, c].iter().collect() } else { c.to_string() }));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

fn double_quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => match rest.next_if(|c| matches!(c, '"' | '\\' | '$' | '`')) {
                Some(escaped) => word.push(escaped),
                None => word.push('\\'),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let known = [('p', "pg_wal/A"), ('f', "A")];
        for (text, expanded, used, unknown) in [
            ("x %p", "x pg_wal/A", "p", ""),
            ("x %p %f %%p", "x pg_wal/A A %p", "pf", ""),
            ("x %p --day %d", "x pg_wal/A --day %d", "p", "%d"),
            ("x 100%", "x 100%", "", "%"),
            ("x %r%%%", "x %r%%", "", "%r,%"),
            ("", "", "", ""),
        ] {
            let found = expand(text, &known);
            assert_eq!(found.text, expanded, "{text}");
            assert_eq!(found.used.iter().collect::<String>(), used, "{text}");
            assert_eq!(found.unknown.join(","), unknown, "{text}");
        }
    }

    #[test]
    fn calls() {
        let own = "walhalla-archive";
        for (text, program, arguments) in [
            ("walhalla-archive pg_wal/A", Some(own), "pg_wal/A"),
            (
                "/opt/x/walhalla-archive --config '/etc/a b' \"pg_wal/A\"",
                Some("/opt/x/walhalla-archive"),
                "--config,/etc/a b,pg_wal/A",
            ),
            ("A=1 exec nice walhalla-archive pg_wal/A 2>>/tmp/log", Some(own), "pg_wal/A"),
            ("walhalla-archive pg_wal/A >/dev/null 2>&1", Some(own), "pg_wal/A"),
            ("sh -c 'walhalla-archive pg_wal/A'", Some(own), "pg_wal/A"),
            ("test -f x && walhalla-archive pg_wal/A # hm", Some(own), "pg_wal/A"),
            ("cp pg_wal/A /srv/walhalla-archive-not", None, ""),
            ("sh -c", None, ""),
            ("", None, ""),
        ] {
            let line = read(text, own);
            assert_eq!(line.program.as_deref(), program, "{text}");
            assert_eq!(line.arguments.join(","), arguments, "{text}");
            assert!(!line.hides_failure, "{text}");
        }
        assert_eq!(read("A=1 B=2 cp x y", own).first.as_deref(), Some("cp"));
        assert_eq!(read(" ", own).first, None);
    }

    #[test]
    fn what_hides_a_failure() {
        for (text, hides) in [
            ("walhalla-archive x || true", true),
            ("walhalla-archive x; true", true),
            ("walhalla-archive x;", false),
            ("walhalla-archive x | tee log", true),
            ("walhalla-archive x 2>&1 | logger", true),
            ("walhalla-archive x &", true),
            ("walhalla-archive x && touch y", false),
            ("walhalla-archive x && touch y || true", true),
            ("walhalla-archive x || exit 1", false),
            ("walhalla-archive x || exit 0", true),
            ("walhalla-archive x || false", false),
            ("walhalla-archive 'x;y|z&'", false),
            ("sh -c 'walhalla-archive x || :'", true),
        ] {
            assert_eq!(read(text, "walhalla-archive").hides_failure, hides, "{text}");
        }
    }
}
