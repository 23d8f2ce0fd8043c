//! Dotted version numbers.

use std::cmp::Ordering;

/// Compares part by part; missing parts are 0, and so is what is no number.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (left, right) = (a.next(), b.next());
        if left.is_none() && right.is_none() {
            return Ordering::Equal;
        }
        let part = |part: Option<&str>| part.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        match part(left).cmp(&part(right)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbers() {
        assert_eq!(compare("3.0.196.0", "3.0.196"), Ordering::Equal);
        assert_eq!(compare("3.0.196.1", "3.0.196.0"), Ordering::Greater);
        assert_eq!(compare("2.3.700.0", "2.3.1000.0"), Ordering::Less);
        assert_eq!(compare("10.0", "9.9"), Ordering::Greater);
        assert_eq!(compare("", "1.2"), Ordering::Less);
    }
}
