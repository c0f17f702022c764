"""From labelled pictures to a trained network: what finetune does, for every depth of freezing."""
