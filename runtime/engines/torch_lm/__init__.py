"""Language models on torch: one quantised base, a row of low-rank updates for each session, many rows in one batch.

Only this package imports torch, transformers, bitsandbytes and gguf; only `runtime/wiring.py` imports it, and late.

    options    what a model is made with
    finding    a name, a directory, a hub id or a GGUF file to a directory of files
    converting GGUF files into the cache
    weights    matrices of the base, in the precision chosen
    lowrank    theta [S, P] as low-rank updates of many sessions, each applied to its own rows
    llama      the forward pass of Llama and its relatives
    packing    rows of tokens without their padding
    scoring    log-probabilities and entropies from hidden states, never all logits at once
    text       the tokenizer, and text that comes token by token
    sampling   the next token of a text
    decoder    texts generated together
    engine     the protocol of `engines/language.py`
"""
