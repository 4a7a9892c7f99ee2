//! Which passwords people may choose: long enough, not among those that attackers try first, and nothing
//! that can be read off the person's address or the laboratory's name (NIST SP 800-63B, 3.1.1.2: blocklists
//! of common and context-specific values).
//!
//! Common passwords, words, names, keyboard patterns and their usual disguises are recognised by zxcvbn's
//! embedded lists. It estimates how many guesses an attacker needs who knows these and the context; fewer
//! than 10^8 are refused, its own threshold.

use std::fmt;

use model::{Email, text};
use secrecy::{ExposeSecret, SecretString};

use crate::generate_password;

/// The fewest characters of a password. NIST SP 800-63B asks for 8 at the least in its third revision and for
/// 15 in its fourth where a password stands alone; no rule about kinds of characters, as NIST advises against
/// them.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The most characters: NIST wants 64 at the least to be allowed.
pub const PASSWORD_CHARS_MAX: usize = 128;
/// The fewest different characters, against "aaaaaaaaaaaa".
const DISTINCT_MIN: usize = 4;
/// How many characters are estimated: guessing the rest comes on top, and the work grows with the square.
const ESTIMATED_MAX: usize = 64;
/// How many letters and digits a password has beside what is known of the person, if it has any of that.
const REST_MIN: usize = 8;
/// Shorter parts of the context say nothing.
const PART_MIN: usize = 3;

/// Why a password is not accepted for future use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// It has too few characters.
    #[error("the password must have at least {PASSWORD_CHARS_MIN} characters; several words make a good one")]
    TooShort,
    /// It has too many characters.
    #[error("the password must have at most {PASSWORD_CHARS_MAX} characters")]
    TooLong,
    /// It repeats the same few characters.
    #[error("the password must have at least {DISTINCT_MIN} different characters")]
    TooUniform,
    /// It is among those that are tried first.
    #[error(
        "the password is a common one, or made of common words and patterns that are guessed soon; choose several unrelated words"
    )]
    Common,
    /// It is made of what is known of the person.
    #[error(
        "the password must not be made of the person's address or of the laboratory's name or short name; choose several unrelated words"
    )]
    Personal,
}

/// What is known of the person who chooses a password, and what an attacker tries first.
#[derive(Debug, Clone, Default)]
pub struct PasswordContext(Vec<String>);

impl PasswordContext {
    /// The person's address.
    #[must_use]
    pub fn of(email: &Email) -> Self {
        let mut context = Self::default();
        context.add(email.as_str());
        if let Some((name, host)) = email.as_str().split_once('@') {
            context.add(name);
            context.add(host);
        }
        context
    }

    /// The laboratory's name and slug too.
    #[must_use]
    pub fn and_laboratory(mut self, name: &str, slug: &str) -> Self {
        self.add(name);
        self.add(slug);
        self
    }

    /// Whether little is left of a password without what is known of the person. The estimate does not see
    /// that: it takes three known words in a row for a good password.
    fn leaves_little_of(&self, password: &str) -> bool {
        let fold = |text: &str| -> String {
            let lower = text.to_lowercase();
            lower.chars().filter(|c| c.is_alphanumeric()).collect()
        };
        let mut parts: Vec<String> = self.0.iter().map(|part| fold(part)).collect();
        parts.sort_unstable_by_key(|part| std::cmp::Reverse(part.len()));
        let folded = fold(password);
        let mut rest = folded.clone();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            rest = rest.replace(part.as_str(), " ");
        }
        rest.contains(' ') && rest.chars().filter(|c| *c != ' ').count() < REST_MIN
    }

    /// The text, its words, and the text without what stands between them.
    fn add(&mut self, text: &str) {
        let text = text::nfc(text).to_lowercase();
        let words = || text.split(|c: char| !c.is_alphanumeric());
        let joined: String = words().collect();
        let parts = words().map(str::to_owned);
        let parts: Vec<String> = parts.chain([joined, text.clone()]).collect();
        for part in parts {
            if part.chars().count() >= PART_MIN && !self.0.contains(&part) {
                self.0.push(part);
            }
        }
    }
}

/// A password that a person may use from now on, in NFC: the only thing of which a hash is made.
#[derive(Clone)]
pub struct ChosenPassword(SecretString);

impl fmt::Debug for ChosenPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ChosenPassword {
    /// Refuses a password that no person may choose: it is too short or too long.
    ///
    /// # Errors
    /// [`WeakPassword::TooShort`], [`WeakPassword::TooLong`].
    pub fn check_length(password: &SecretString) -> Result<(), WeakPassword> {
        let typed = password.expose_secret();
        // Four bytes a character at most, and NFC shortens a text to a third at most (UAX #15, 9.1).
        if typed.len() > 12 * PASSWORD_CHARS_MAX {
            return Err(WeakPassword::TooLong);
        }
        let length = text::nfc(typed).chars().count();
        if length < PASSWORD_CHARS_MIN {
            return Err(WeakPassword::TooShort);
        }
        if length > PASSWORD_CHARS_MAX {
            return Err(WeakPassword::TooLong);
        }
        Ok(())
    }

    /// Accepts a password that a person has chosen.
    ///
    /// # Errors
    /// [`WeakPassword`] says what to do instead.
    pub fn check(password: &SecretString, context: &PasswordContext) -> Result<Self, WeakPassword> {
        let typed = password.expose_secret();
        Self::check_length(password)?;
        let normal = text::nfc(typed);
        let distinct: std::collections::HashSet<char> = normal.chars().collect();
        if distinct.len() < DISTINCT_MIN {
            return Err(WeakPassword::TooUniform);
        }
        if context.leaves_little_of(&normal) {
            return Err(WeakPassword::Personal);
        }
        let estimated: String = normal.chars().take(ESTIMATED_MAX).collect();
        let known: Vec<&str> = context.0.iter().map(String::as_str).collect();
        if guessed_soon(&estimated, &known) {
            return Err(if guessed_soon(&estimated, &[]) {
                WeakPassword::Common
            } else {
                WeakPassword::Personal
            });
        }
        Ok(Self(normal.into_owned().into()))
    }

    /// A random one: 256 bits as 43 characters.
    #[must_use]
    pub fn generate() -> Self {
        Self(generate_password())
    }

    /// The password itself, for hashing, and for showing one that was generated.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

fn guessed_soon(password: &str, known: &[&str]) -> bool {
    zxcvbn::zxcvbn(password, known).score() < zxcvbn::Score::Three
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str) -> Result<(), WeakPassword> {
        let email = Email::parse("jane.doe-smith@mercy-clinic.example").unwrap();
        let context = PasswordContext::of(&email).and_laboratory("Sankt-Anna Labor Söhne", "sankt-anna");
        ChosenPassword::check(&password.into(), &context).map(drop)
    }

    #[test]
    fn the_rule_counts_characters() {
        assert_eq!(check("korrekt pferd"), Ok(()));
        assert_eq!(check("ähöüßq zäöwüß"), Ok(()), "13 characters, 20 bytes");
        assert_eq!(check("elevenchars"), Err(WeakPassword::TooShort));
        assert_eq!(
            check("e\u{301}levenchars"),
            Err(WeakPassword::TooShort),
            "composed"
        );
        assert_eq!(check(&"abcdefgh".repeat(17)), Err(WeakPassword::TooLong));
        assert_eq!(check(&"x".repeat(15_000_000)), Err(WeakPassword::TooLong));
        assert_eq!(check("aaaaaaaaaaaaaaa"), Err(WeakPassword::TooUniform));
    }

    #[test]
    fn what_is_tried_first_is_refused() {
        for common in [
            "password1234",
            "Password1234!",
            "passwordpassword",
            "P@ssw0rd2024",
            "qwertyuiop12",
            "1qaz2wsx3edc",
            "123456789012",
            "iloveyou1234",
            "administrator",
            "abcdefghijkl",
            "letmeinletmein",
            "1234567890qwerty",
        ] {
            assert_eq!(check(common), Err(WeakPassword::Common), "{common}");
        }
    }

    #[test]
    fn what_is_known_of_the_person_is_refused() {
        for personal in [
            "jane.doe-smith@mercy-clinic.example",
            "JANE.DOE-SMITH",
            "jane.doe-smith1",
            "Sankt-Anna Labor Söhne",
            "sankt-anna labor so\u{308}hne",
            "sankt-anna-sankt-anna",
            "Sankt-Anna-2024",
            "sanktanna1234",
            "mercy-clinic.example",
        ] {
            assert_eq!(check(personal), Err(WeakPassword::Personal), "{personal}");
        }
        // A word of it beside others is no harm.
        assert_eq!(check("thirteen anna umbrellas fold"), Ok(()));
    }

    #[test]
    fn good_ones_pass_in_every_script_and_are_kept_in_one_form() {
        for good in [
            "correct horse battery",
            "another good one",
            "a long pass phrase",
            "thirteen purple umbrellas",
            "пять слонов гуляют",
            "Xk9-vQ2-mZ7-pL4",
            "zoë's tall giraffe",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let chosen = ChosenPassword::check(&"zoe\u{308}'s tall giraffe".into(), &PasswordContext::default());
        assert_eq!(chosen.unwrap().secret().expose_secret(), "zoë's tall giraffe");
        check(ChosenPassword::generate().secret().expose_secret()).unwrap();
    }

    /// The estimate runs on the caller's thread.
    #[test]
    fn the_worst_password_is_estimated_in_bounded_time() {
        let begun = std::time::Instant::now();
        for hard in ["4@8({[<369&#!1/|0$5+7%2", "a4b8c(d3e6g9", "p4s5w0rd", "qwerty1"] {
            let _outcome = check(&hard.repeat(12).chars().take(128).collect::<String>());
        }
        // Some milliseconds; the bound is for a machine that does much else.
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
    }
}
