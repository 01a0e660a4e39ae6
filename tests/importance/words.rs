//! From pieces to words.

use super::*;

fn pieces(rows: &[&[&str]]) -> Tokens {
    let ids: Vec<Vec<i64>> = rows.iter().map(|row| vec![1; row.len()]).collect();
    let owned = rows.iter().map(|row| row.iter().map(|piece| piece.to_string()).collect());
    Tokens::from_ids(&ids).unwrap().labelled(owned.collect()).unwrap()
}

fn grid(values: &[f64], axes: &[(Axis, usize)]) -> Grid {
    let shape: Vec<usize> = axes.iter().map(|(_, len)| *len).collect();
    let values = thalweg::ndarray::ArrayD::from_shape_vec(shape, values.to_vec()).unwrap();
    Grid::from_array(values, &axes.iter().map(|(axis, _)| *axis).collect::<Vec<_>>(), "nats")
        .unwrap()
}

#[test]
fn pieces_of_a_word_are_one_cell_and_labels_are_the_words() {
    let tokens =
        pieces(&[&["<s>", "When", "ever", " it", " ra", "ins", ",", " don", "'t", " go", "!"]]);
    let values: Vec<f64> = (0..22).map(f64::from).collect();
    let words = by_word(&grid(&values, &[(Axis::Layer, 2), (Axis::Pos, 11)]), &tokens).unwrap();
    let labels = ["<s>", "Whenever", "it", "rains", ",", "don't", "go", "!"];
    assert_eq!(words.labels(Axis::Pos).unwrap(), labels);
    let first: Vec<f64> = words.select(Axis::Layer, 0).unwrap().values.iter().copied().collect();
    assert_eq!(first, [0.0, 3.0, 3.0, 9.0, 6.0, 15.0, 9.0, 10.0]);
    assert_eq!(words.values.sum(), values.iter().sum::<f64>());
    assert_eq!(words.labels(Axis::Layer).unwrap(), ["L0", "L1"]);
}

#[test]
fn tokens_of_a_vocabulary_of_words_are_words() {
    let tokens = pieces(&[&["<s>", "Mary", "and", "John"]]);
    let own = grid(&[1.0, 2.0, 3.0, 4.0], &[(Axis::Pos, 4)]);
    let words = by_word(&own, &tokens).unwrap();
    assert_eq!(words.values, own.values);
    assert_eq!(words.labels(Axis::Pos).unwrap(), ["<s>", "Mary", "and", "John"]);
}

#[test]
fn rows_of_unequal_length_end_together_and_what_is_missing_stays_out() {
    let tokens = pieces(&[&["The", " cat", " sl", "eeps"], &["Par", "is"], &["A", " cat", "s"]]);
    let each = grid(
        &[1.0, 2.0, 3.0, 4.0, 9.0, 9.0, 5.0, 6.0, 9.0, 1.0, 1.0, 7.0],
        &[(Axis::Batch, 3), (Axis::Pos, 4)],
    );
    let mut gone = thalweg::ndarray::ArrayD::from_elem(vec![3, 4], false);
    for cell in [[0, 3], [1, 0], [1, 1], [2, 0]] {
        gone[&cell[..]] = true;
    }
    gone[&[0, 0][..]] = true;
    let words = by_word(&each.missing(gone).unwrap(), &tokens).unwrap();
    assert_eq!(words.labels(Axis::Pos).unwrap(), ["-3", "-2", "-1"]);
    let found: Vec<_> =
        cells(&words).into_iter().map(|(index, value)| (index[0], index[1], value)).collect();
    // "The" is missing whole, "sleeps" in part; the second row is one word.
    assert_eq!(found, [(0, 1, 2.0), (0, 2, 3.0), (1, 2, 11.0), (2, 1, 1.0), (2, 2, 8.0)]);
}

#[test]
fn a_grid_of_other_tokens_is_refused() {
    let tokens = pieces(&[&["The", " cat"]]);
    says(by_word(&grid(&[1.0; 3], &[(Axis::Pos, 3)]), &tokens), &["Pos 3", "1 x 2"]);
    says(by_word(&grid(&[1.0; 2], &[(Axis::Layer, 2)]), &tokens), &["no axis Pos", "Layer 2"]);
}
