"""The providers' protocols, one file each; `registry` lists them, `base` is what each has to offer."""
