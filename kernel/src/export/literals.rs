//! `let x = 0.5;`: a notebook settles the type of `x` when its cell ends.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Block, Expr, Lit, Pat, Stmt, UnOp};

/// `code` with the type that a cell leaves a number written where a later cell (its code is `later`) calls a method
/// on it: rustc asks for the type there. A number that the rest of its own cell mentions may have another type and is
/// left as it is.
pub(crate) fn pin(code: &str, later: &str) -> String {
    let Ok(statements) = Block::parse_within.parse_str(code) else { return code.to_owned() };
    let mut text = code.to_owned();
    for statement in statements.iter().rev() {
        let Stmt::Local(local) = statement else { continue };
        let (Pat::Ident(name), Some(init)) = (&local.pat, &local.init) else { continue };
        let Some(kind) = kind(&init.expr) else { continue };
        let (word, end) = (name.ident.to_string(), name.span().byte_range().end);
        let rest = &code[local.span().byte_range().end..];
        if count(rest, &word, false) == 0 && count(later, &word, true) > 0 {
            text.insert_str(end, &format!(": {kind}"));
        }
    }
    text
}

/// The type that a literal number gets when nothing else says it.
fn kind(value: &Expr) -> Option<&'static str> {
    match value {
        Expr::Unary(minus) if matches!(minus.op, UnOp::Neg(_)) => kind(&minus.expr),
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) if number.suffix().is_empty() => Some("i32"),
            Lit::Float(number) if number.suffix().is_empty() => Some("f64"),
            _ => None,
        },
        _ => None,
    }
}

/// How often `code` names `word`, or, with `calls`, calls a method on it.
fn count(code: &str, word: &str, calls: bool) -> usize {
    fn within(tokens: TokenStream, word: &str, calls: bool) -> usize {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |token: Option<&TokenTree>, sign: char| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
        let one = |at: usize| match &tokens[at] {
            TokenTree::Group(group) => within(group.stream(), word, calls),
            TokenTree::Ident(ident) if ident == word => {
                let method = is(tokens.get(at + 1), '.')
                    && matches!(tokens.get(at + 2), Some(TokenTree::Ident(_)))
                    && !(at > 0 && is(tokens.get(at - 1), '.'));
                usize::from(!calls || method)
            }
            // `{word}` in a format string
            TokenTree::Literal(literal) if !calls => {
                usize::from(literal.to_string().contains(&format!("{{{word}")))
            }
            _ => 0,
        };
        (0..tokens.len()).map(one).sum()
    }
    code.parse().map_or(0, |tokens| within(tokens, word, calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_gets_the_type_its_cell_gave_it_where_a_later_cell_calls_a_method() {
        assert_eq!(pin("let mut x = -0.5;", "x.abs()"), "let mut x: f64 = -0.5;");
        assert_eq!(pin("let n = 3; let m = 2;", "n.pow(2) + m"), "let n: i32 = 3; let m = 2;");
        assert_eq!(pin("let x = 0.5; takes_f32(x);", "x.abs()"), "let x = 0.5; takes_f32(x);");
        assert_eq!(pin("let x = 0.5;", "a.x.abs(); x * 2.0"), "let x = 0.5;");
    }
}
