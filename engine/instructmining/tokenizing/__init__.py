"""Converts examples to token ids: templates, the tokenizer, and windows of tokenized rows."""
