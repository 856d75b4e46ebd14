# Where the state is: `terraform init -backend-config=envs/prod.backend.hcl`.
terraform {
  backend "s3" {}
}
