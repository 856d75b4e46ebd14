# The bucket that bootstrap made.
bucket       = "livefeed-terraform-ACCOUNT"
key          = "livefeed-prod.tfstate"
region       = "eu-west-1"
encrypt      = true
use_lockfile = true
