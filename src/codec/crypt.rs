//! `age` recipients and identities (X25519 only: the native keys of `age-keygen`).

use super::Defect;
use crate::pg::ParseError;
use age::x25519;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// What every `age` file begins with.
pub(super) const AGE_MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// What every secret key begins with, in capitals as `age-keygen` writes it.
const SECRET_KEY: &str = "AGE-SECRET-KEY";

/// Whom objects are encrypted to. Empty: not at all.
#[derive(Clone, Default)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads recipients (`age1…`) that are separated by commas or white space. An empty text is no recipient.
    ///
    /// A secret key among them is refused without being repeated: the database host is to hold only public keys.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        words.map(recipient).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// Whether nothing is to be encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Starts an `age` file; what is written to the answer is encrypted into `output`.
    pub(super) fn wrap<W: Write>(&self, output: W) -> io::Result<age::stream::StreamWriter<W>> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(output)
    }
}

fn recipient(word: &str) -> Result<x25519::Recipient, ParseError> {
    if is_secret(word) {
        return Err(ParseError::new("age recipient", "a secret key stands where its public recipient (age1…) belongs"));
    }
    // Only what begins as a recipient does is surely public; anything else may be a piece of some other key.
    let shown = if word.starts_with("age1") { format!("{word:?}") } else { "a word that is none (age1…)".to_owned() };
    word.parse().map_err(|error| ParseError::new("age recipient", format!("{shown}: {error}")))
}

/// Whether a text holds a secret key, wherever in it: behind `identity=`, a quotation mark, or another word.
pub(crate) fn is_secret(text: &str) -> bool {
    text.to_ascii_uppercase().contains(SECRET_KEY)
}

impl fmt::Display for Recipients {
    /// The recipients, by comma: public, and as [`Recipients::parse`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, recipient) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{recipient}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({self})")
    }
}

/// What opens encrypted objects. Empty: only plain objects can be read.
#[derive(Clone, Default)]
pub struct Identities(Arc<Vec<x25519::Identity>>);

impl Identities {
    /// Reads the text of an identity file as `age-keygen` writes it: a secret key a line, empty lines and `#` comments between.
    ///
    /// An error names the line and never repeats it. A text without any key is an error too: whoever names an identity means one.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.parse().map_err(|_: &str| {
                ParseError::new("age identity", format!("line {} is no AGE-SECRET-KEY-1… of age-keygen", number + 1))
            })?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(ParseError::new("age identity", "there is no AGE-SECRET-KEY-1… in it"));
        }
        Ok(Self(Arc::new(keys)))
    }

    /// Whether only plain objects can be read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plain text of an `age` file.
    pub(super) fn unwrap<'a>(&self, payload: &'a [u8]) -> Result<impl Read + use<'a>, Defect> {
        let damaged = |error: age::DecryptError| match error {
            age::DecryptError::NoMatchingKeys => Defect::NoIdentity,
            other => Defect::PayloadDamaged(format!("as an age file: {other}")),
        };
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        age::Decryptor::new_buffered(payload).map_err(damaged)?.decrypt(identities).map_err(damaged)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({} secret)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    fn pair() -> (String, String) {
        let key = x25519::Identity::generate();
        (key.to_string().expose_secret().to_owned(), key.to_public().to_string())
    }

    #[test]
    fn recipients_by_comma_and_space() {
        let ((_, a), (_, b)) = (pair(), pair());
        for (text, count) in [
            (String::new(), 0),
            (" , ,".to_owned(), 0),
            (a.clone(), 1),
            (format!(" {a} , {b} "), 2),
            (format!("{a}\n{b}\n"), 2),
        ] {
            let recipients = Recipients::parse(&text).unwrap();
            assert_eq!((recipients.0.len(), recipients.is_empty()), (count, count == 0), "{text:?}");
            assert_eq!(Recipients::parse(&recipients.to_string()).unwrap().0, recipients.0);
        }
        for text in ["age1", "age1qqq", "ssh-ed25519 AAAA", &a.to_uppercase()[..20], &format!("{a};{b}")] {
            assert!(Recipients::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn identities_with_comments() {
        let ((a, _), (b, _)) = (pair(), pair());
        let text = format!("# created: 2026-11-23T17:01:59Z\r\n{a}\r\n\n  # second\n {b} \n");
        assert_eq!(Identities::parse(&text).unwrap().0.len(), 2);
        assert!(Identities::default().is_empty());
        for text in ["", "# only a comment\n", "AGE-SECRET-KEY-1", &a[..a.len() - 1], "hello"] {
            assert!(Identities::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_never_show() {
        let (secret, public) = pair();
        let shown = format!("{:?}", Identities::parse(&secret).unwrap());
        assert_eq!(shown, "Identities(1 secret)");
        for error in [
            Recipients::parse(&format!("{public},{secret}")).unwrap_err(),
            Recipients::parse(&secret.to_lowercase()).unwrap_err(),
            Recipients::parse(&format!("identity={secret}")).unwrap_err(),
            Recipients::parse(&format!("\"{}\"", secret.to_lowercase())).unwrap_err(),
            Recipients::parse(&format!("{public}{secret}")).unwrap_err(),
            Recipients::parse(&secret[15..]).unwrap_err(),
            Identities::parse(&format!("{secret}\n{secret}x")).unwrap_err(),
        ] {
            let text = format!("{error} {error:?}").to_lowercase();
            assert!(!text.contains(&secret[15..40].to_lowercase()), "{text}");
        }
    }
}
