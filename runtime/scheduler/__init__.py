"""When predictions and adaptation steps run: `decide` is pure, `predictor` and `learner` call the engines."""
