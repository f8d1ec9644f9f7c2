"""The providers' protocols, one file each; `registry` lists them, `base` defines their interface."""
