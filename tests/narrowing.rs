//! An intervention acts on the part it is narrowed to, whatever names that part, and nowhere else.

use thalweg::{Index, Intervention, Point, Position, Site};

use crate::support::change::{covers, pair, real};

#[test]
fn without_a_narrowing_all_tokens_change_and_no_padding() {
    covers(Point::ResidPost.at(1), |e| e, real);
    covers(Site::Embed, |e| e, real);
    covers(Site::Logits, |e| e, real);
    covers(Point::Pattern.at(0), |e| e, pair);
}

#[test]
fn batch_narrows_to_rows() {
    let site = Point::ResidMid.at(0);
    covers(site, |e| e.batch(0), |i| i[0] == 0);
    covers(site, |e| e.batch(-1), |i| i[0] == 1 && real(i));
    covers(site, |e| e.batch(0..1), |i| i[0] == 0);
    covers(site, |e| e.batch(vec![1, 0]), real);
    covers(Point::Pattern.at(1), |e| e.batch([1]), |i| i[0] == 1 && pair(i));
}

#[test]
fn pos_counts_in_each_rows_own_tokens() {
    let site = Point::ResidPre.at(1);
    covers(site, |e| e.pos(0), |i| [[0, 0], [1, 2]].contains(&[i[0], i[1]]));
    covers(site, |e| e.pos(-1), |i| i[1] == 4);
    covers(site, |e| e.pos(-2), |i| i[1] == 3);
    covers(site, |e| e.pos(Position::Last), |i| i[1] == 4);
    covers(
        site,
        |e| e.pos(1..3),
        |i| (i[0] == 0 && (1..3).contains(&i[1])) || i[0] == 1 && i[1] >= 3,
    );
    covers(site, |e| e.pos(-2..), |i| i[1] >= 3);
    covers(site, |e| e.pos(..1), |i| [[0, 0], [1, 2]].contains(&[i[0], i[1]]));
    covers(site, |e| e.pos([0, -1]), |i| [[0, 0], [0, 4], [1, 2], [1, 4]].contains(&[i[0], i[1]]));
    covers(site, |e| e.pos(Index::All), real);
    let per_row = |e: Intervention| e.pos(Position::PerRow(vec![3, 0]));
    covers(site, per_row, |i| [[0, 3], [1, 2]].contains(&[i[0], i[1]]));
    covers(site, |e| e.pos("S"), |i| [[0, 1], [1, 4]].contains(&[i[0], i[1]]));
    let found = |e: Intervention| e.pos(Position::PerRow(vec![-1, -3]));
    covers(site, found, |i| [[0, 4], [1, 2]].contains(&[i[0], i[1]]));
}

#[test]
fn query_and_key_narrow_attention() {
    let site = Point::Pattern.at(0);
    covers(site, |e| e.query(-1), |i| i[2] == 4 && pair(i));
    covers(site, |e| e.key(0), |i| i[3] == if i[0] == 0 { 0 } else { 2 } && pair(i));
    covers(
        site,
        |e| e.query(1..).key([0]),
        |i| {
            let first = if i[0] == 0 { 0 } else { 2 };
            i[2] > first && i[3] == first
        },
    );
    covers(
        site,
        |e| e.query("S").key("S"),
        |i| {
            let place = if i[0] == 0 { 1 } else { 4 };
            i[2] == place && i[3] == place
        },
    );
    covers(
        Point::Scores.at(1),
        |e| e.key(1..2).head(2),
        |i| i[1] == 2 && i[3] == if i[0] == 0 { 1 } else { 3 } && pair(i),
    );
}

#[test]
fn heads_neurons_and_dimensions_narrow() {
    covers(Point::Z.at(1), |e| e.head(3), |i| i[2] == 3 && real(i));
    covers(Point::Z.at(1), |e| e.head(-1), |i| i[2] == 3 && real(i));
    covers(Point::Q.at(0), |e| e.head(1..3), |i| (1..3).contains(&i[2]) && real(i));
    covers(Point::RotQ.at(0), |e| e.head([0, 2]), |i| [0, 2].contains(&i[2]) && real(i));
    covers(Point::Scores.at(0), |e| e.head([1, 3]), |i| [1, 3].contains(&i[1]) && pair(i));
    covers(Point::HeadResult.at(0), |e| e.head(0), |i| i[2] == 0 && real(i));
    covers(Point::QInput.at(1), |e| e.head(2).dim(4), |i| i[2] == 2 && i[3] == 4 && real(i));
    covers(Point::KInput.at(1), |e| e.kv_head(1), |i| i[2] == 1 && real(i));
    covers(Point::VInput.at(1), |e| e.kv_head(-2), |i| i[2] == 0 && real(i));
    covers(
        Point::K.at(0),
        |e| e.kv_head(0).pos(0),
        |i| i[2] == 0 && i[1] == if i[0] == 0 { 0 } else { 2 },
    );
    covers(Point::RotK.at(1), |e| e.kv_head(..1), |i| i[2] == 0 && real(i));
    covers(Point::MlpPost.at(0), |e| e.neuron(vec![0, -1]), |i| [0, 19].contains(&i[2]) && real(i));
    covers(Point::MlpPre.at(1), |e| e.neuron(3..5), |i| (3..5).contains(&i[2]) && real(i));
    covers(Point::ResidPost.at(0), |e| e.dim(-1), |i| i[2] == 11 && real(i));
    covers(Point::V.at(0), |e| e.dim(..2).kv_head(1), |i| i[2] == 1 && i[3] < 2 && real(i));
    covers(Site::Logits, |e| e.dim(7).pos(-1), |i| i[1] == 4 && i[2] == 7);
    covers(Point::Z.at(0), |e| e.batch(1).pos(1).head(2).dim(5), |i| i == [1, 3, 2, 5]);
}
