# The bucket that bootstrap made.
bucket       = "livefeed-terraform-ACCOUNT"
key          = "livefeed-dev.tfstate"
region       = "eu-west-1"
encrypt      = true
use_lockfile = true
