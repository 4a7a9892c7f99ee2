//! A new password: from standard input, a variable or the file that it names, the person at the terminal, or
//! generated. Never from an argument, which every user of the machine can read.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _},
};

use anyhow::Context as _;
use identity::{ChosenPassword, PasswordContext};
use secrecy::ExposeSecret;

use crate::outcome::Refusal;

/// A password and whether the person has yet to be told it.
pub(crate) struct NewPassword {
    pub(crate) chosen: ChosenPassword,
    pub(crate) generated: bool,
}

impl NewPassword {
    /// The text to show once, if it was generated.
    pub(crate) fn to_show(&self) -> Option<&str> {
        self.generated.then(|| self.chosen.secret().expose_secret())
    }
}

/// Takes the password of `whom` from the first place that has one and checks it against what is known of
/// them.
pub(crate) fn obtain(
    whom: &str,
    context: &PasswordContext,
    from_stdin: bool,
    variable: &'static str,
) -> anyhow::Result<NewPassword> {
    let given = if from_stdin {
        Some(from_input()?)
    } else if let Some(value) = settings::secret_variable(variable, &own_environment())? {
        Some(value)
    } else if io::stdin().is_terminal() && io::stderr().is_terminal() {
        Some(ask(whom)?)
    } else {
        None
    };
    let Some(given) = given else {
        return Ok(NewPassword {
            chosen: ChosenPassword::generate(),
            generated: true,
        });
    };
    let chosen = ChosenPassword::check(&given.into(), context)
        .map_err(|weak| Refusal::Usage(format!("the password of {whom}: {weak}")))?;
    Ok(NewPassword {
        chosen,
        generated: false,
    })
}

/// The variables that are set to something.
fn own_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn from_input() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("reading the password from standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn ask(whom: &str) -> anyhow::Result<String> {
    let first =
        rpassword::prompt_password(format!("Password for {whom}: ")).context("asking for the password")?;
    let again = rpassword::prompt_password("The same again: ").context("asking for the password")?;
    if first != again {
        return Err(Refusal::Usage("the two passwords differ; nothing was changed".to_owned()).into());
    }
    Ok(first)
}
