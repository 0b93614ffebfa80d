"""Decoding: from prompts and the trie to scored rows. No strings, no item ids, no tokenizer."""
