//! LOINC codes: the form and the check digit. Codes written from memory are wrong more often than not; a
//! wrong check digit catches most of them. Whether the code means the test, only the LOINC table can say.

/// Whether `code` has the form `ddddd-d` and its last digit is the mod 10 (Luhn) check digit of the others,
/// as the LOINC Users' Guide describes it (appendix "Calculating LOINC Check Digits").
#[must_use]
pub fn is_loinc(code: &str) -> bool {
    let Some((number, check)) = code.split_once('-') else {
        return false;
    };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !(1..=6).contains(&number.len()) || check.len() != 1 || !all_digits(number) || !all_digits(check) {
        return false;
    }
    check.as_bytes()[0] - b'0' == check_digit(number)
}

/// Every second digit from the right, beginning with the last, is doubled; the digits of it all are summed.
fn check_digit(number: &str) -> u8 {
    let sum: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0');
            let weighed = if place % 2 == 0 { digit * 2 } else { digit };
            weighed / 10 + weighed % 10
        })
        .sum();
    u8::try_from((10 - sum % 10) % 10).expect("a remainder of ten fits a byte")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_codes_hold() {
        for code in [
            "2345-7", "17861-6", "6690-2", "5671-3", "5609-3", "5685-3", "14979-9", "789-8",
        ] {
            assert!(is_loinc(code), "{code}");
        }
        for code in [
            "",
            "-",
            "2345",
            "2345-",
            "2345-8",
            "-7",
            "2345-77",
            "a345-7",
            "1234567-1",
            "2345-7 ",
            "٢345-7",
        ] {
            assert!(!is_loinc(code), "{code}");
        }
    }

    proptest! {
        #[test]
        fn exactly_one_check_digit_is_right(number in "[0-9]{1,6}") {
            let right = (0..=9).filter(|digit| is_loinc(&format!("{number}-{digit}"))).count();
            prop_assert_eq!(right, 1);
        }

        #[test]
        fn one_mistyped_digit_is_found(number in "[0-9]{2,6}", place in 0usize..6, shift in 1u8..10) {
            let place = place % number.len();
            let check = (0..=9).find(|digit| is_loinc(&format!("{number}-{digit}"))).unwrap();
            let mut typed = number.into_bytes();
            typed[place] = b'0' + (typed[place] - b'0' + shift) % 10;
            let code = format!("{}-{check}", String::from_utf8(typed).unwrap());
            prop_assert!(!is_loinc(&code), "{}", code);
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = is_loinc(&text);
        }
    }
}
