output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "Addresses of the VPC."
  value       = var.cidr
}

output "subnet_ids" {
  description = "Ids of the subnets by tier (public, private, data), in the order of the zones."
  value = {
    for tier in keys(local.tiers) : tier => [for index in range(3) : aws_subnet.this["${tier}-${index}"].id]
  }

  # An instance that boots in a subnet without a way out would reach no registry and no secret.
  depends_on = [
    aws_route.public,
    aws_route_table_association.public,
    aws_route.private,
    aws_route_table_association.private,
  ]
}

output "subnet_cidrs" {
  description = "Addresses of the subnets by tier, in the order of the zones; known before anything is made."
  value = {
    for tier in keys(local.tiers) : tier => [for index in range(3) : local.subnets["${tier}-${index}"].cidr]
  }
}
