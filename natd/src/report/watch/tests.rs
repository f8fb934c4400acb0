use super::super::samples;
use super::*;

const PLAIN: Style = Style { colour: false, blocks: true };
const SECOND: Duration = Duration::from_secs(1);

fn screen(columns: u16, rows: u16) -> Size {
    Size { columns, rows }
}

fn after_a_second(size: Size, style: Style) -> String {
    render(Some(&samples::status()), &samples::second_later(), SECOND, size, style)
}

#[test]
fn a_usual_terminal_shows_everything() {
    let expected = "";
    assert_eq!(after_a_second(screen(80, 24), PLAIN), expected);
}
