"""Language models on torch: one quantised base, a row of low-rank updates for each session, many rows in one batch.

Only this package imports torch, transformers, bitsandbytes and gguf; only `runtime/wiring.py` imports it, and late.

    options    what a model is made with
    finding    a name, a directory, a hub id or a GGUF file to a directory of files
    converting GGUF files into the cache
    weights    matrices of the base, in the precision chosen
    kernels    products of a few rows that libraries do not promise, each tried before it is relied on
    lowrank    theta [S, P] as low-rank updates of many sessions, each applied to its own rows
    llama      what both passes read of Llama and its relatives
    packing    rows of tokens without their padding
    learning_pass, attending, updating    the pass of learning and scoring, forward and backward
    arena      its memory
    scoring    log-probabilities and entropies from hidden states, never all logits at once
    text       the tokenizer, and text that comes token by token
    generating, bank, cache    the pass of generation; rows of theta, keys and values of the running texts
    sampling   the next token of a text
    decoder    texts generated together
    engine     the protocol of `engines/language.py`
"""
