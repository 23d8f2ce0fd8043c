use super::*;

fn down(code: u16, unit: u16, state: u32) -> Key {
    Key { is_down: true, repeats: 1, code, unit, state }
}

fn up(code: u16, unit: u16) -> Key {
    Key { is_down: false, repeats: 1, code, unit, state: 0 }
}

fn sent(keys: &[Key]) -> Vec<u8> {
    let (mut keyboard, mut out) = (Keyboard::default(), Vec::new());
    for key in keys {
        keyboard.press(*key, &mut out);
    }
    out
}

fn text(keys: &[Key]) -> String {
    String::from_utf8(sent(keys)).unwrap()
}

fn units(text: &str) -> Vec<Key> {
    text.encode_utf16().map(|unit| down(0, unit, 0)).collect()
}

#[test]
fn characters() {
    assert_eq!(text(&units("aZ\r\té€中文😀")), "aZ\r\té€中文😀");
    assert_eq!(text(&[down(0x41, 97, 0), up(0x41, 97)]), "a", "a key's release sends nothing");
    assert_eq!(text(&[Key { repeats: 3, ..down(0x41, 97, 0) }]), "aaa");
    assert_eq!(sent(&[down(0x43, 3, state::LEFT_CONTROL), down(0x5a, 26, state::RIGHT_CONTROL)]), [3, 26]);
}

#[test]
fn halves_of_characters() {
    let [first, second] = [0xd83d, 0xde00].map(|unit| down(0, unit, 0));
    let release = [up(0, 0xd83d), up(0, 0xde00)];
    assert_eq!(text(&[first, release[0], second, release[1]]), "😀", "the halves are two keys");
    assert_eq!(text(&[second]), "\u{fffd}");
    assert_eq!(text(&[first, down(0, 97, 0)]), "\u{fffd}a");
    assert_eq!(text(&[first, first, second]), "\u{fffd}😀");
    assert_eq!(
        text(&[first, down(code::UP, 0, 0), second]),
        "\x1b[A😀",
        "a half waits for the next character"
    );
    assert_eq!(text(&[first]), "");
}

#[test]
fn alt_gr_is_part_of_the_character() {
    let alt_gr = state::LEFT_CONTROL | state::RIGHT_ALT;
    assert_eq!(text(&[down(0x51, '@' as u16, alt_gr), down(0x45, '€' as u16, alt_gr)]), "@€");
    assert_eq!(text(&[down(0xe2, '\\' as u16, alt_gr), down(0x30, '}' as u16, alt_gr)]), "\\}");
    assert_eq!(text(&[down(0x41, 0, alt_gr)]), "", "a key without a third meaning");
}

#[test]
fn alt_is_an_escape_before_the_character() {
    assert_eq!(text(&[down(0x58, 'x' as u16, state::LEFT_ALT)]), "\x1bx");
    assert_eq!(text(&[down(0, 'x' as u16, state::LEFT_ALT)]), "x", "the console has translated it");
    assert_eq!(sent(&[down(code::BACKSPACE, 8, state::LEFT_ALT)]), [0x1b, 0x7f]);
    assert_eq!(sent(&[down(0x58, 0, state::LEFT_ALT | state::LEFT_CONTROL)]), [0x1b, 0x18]);
}

#[test]
fn characters_spelt_on_the_numeric_pad() {
    let spelt =
        [down(0x64, 0, state::LEFT_ALT), down(code::LEFT, 0, state::LEFT_ALT), up(code::ALT, '€' as u16)];
    assert_eq!(text(&spelt), "€");
    assert_eq!(text(&[down(code::ALT, 0, state::LEFT_ALT), up(code::ALT, 0)]), "");
    assert_eq!(text(&[down(code::LEFT, 0, state::LEFT_ALT | state::ENHANCED)]), "\x1b[1;3D");
}

#[test]
fn the_null_character() {
    let control = state::LEFT_CONTROL;
    assert_eq!(sent(&[down(code::SPACE, 32, control)]), [0]);
    assert_eq!(sent(&[down(code::SPACE, 0, control)]), [0]);
    assert_eq!(sent(&[down(code::TWO, 0, control | state::SHIFT)]), [0]);
    assert_eq!(sent(&[down(code::SPACE, 32, 0), down(code::TWO, 0, 0)]), b" ");
}

#[test]
fn editing_keys() {
    assert_eq!(sent(&[down(code::BACKSPACE, 8, 0)]), [0x7f]);
    assert_eq!(sent(&[down(code::BACKSPACE, 0x7f, state::LEFT_CONTROL)]), [8]);
    assert_eq!(sent(&[down(0, 8, 0), down(0, 0x7f, 0)]), [8, 0x7f], "the console has translated them");
    assert_eq!(text(&[down(code::TAB, 9, 0), down(code::TAB, 9, state::SHIFT)]), "\t\x1b[Z");
}

#[test]
fn keys_without_a_character() {
    let (shift, control, alt) = (state::SHIFT, state::RIGHT_CONTROL, state::LEFT_ALT | state::ENHANCED);
    for (code, held, expected) in [
        (code::UP, 0, "\x1b[A"),
        (code::DOWN, shift, "\x1b[1;2B"),
        (code::RIGHT, control, "\x1b[1;5C"),
        (code::LEFT, shift | control, "\x1b[1;6D"),
        (code::LEFT, alt, "\x1b[1;3D"),
        (code::HOME, 0, "\x1b[H"),
        (code::END, control, "\x1b[1;5F"),
        (code::INSERT, 0, "\x1b[2~"),
        (code::DELETE, shift, "\x1b[3;2~"),
        (code::PAGE_UP, 0, "\x1b[5~"),
        (code::PAGE_DOWN, control, "\x1b[6;5~"),
        (code::F1, 0, "\x1bOP"),
        (code::F1 + 3, shift, "\x1b[1;2S"),
        (code::F1 + 4, 0, "\x1b[15~"),
        (code::F1 + 5, 0, "\x1b[17~"),
        (code::F1 + 11, control, "\x1b[24;5~"),
        (code::F1 + 12, 0, ""),
        // Shift, Control, Caps Lock.
        (0x10, shift, ""),
        (0x11, control, ""),
        (0x14, 0, ""),
    ] {
        assert_eq!(text(&[down(code, 0, held)]), expected, "{code:#x} with {held:#x}");
    }
}
