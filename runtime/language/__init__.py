"""Learning at test time and answering for language models: jobs, the learner, candidates, sampling."""
