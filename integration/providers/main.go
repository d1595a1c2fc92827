// Command providers is a Terraform provider for tests: a "room_machine" is a file, which a test can
// take away behind Terraform's back as a cloud takes away a machine. It is a module of its own so that
// the plugin framework stays out of Greenroom's dependencies.
package main

import (
	"context"
	"errors"
	"log"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

func main() {
	newRoom := func() provider.Provider { return room{} }
	err := providerserver.Serve(context.Background(), newRoom, providerserver.ServeOpts{
		Address: "registry.terraform.io/greenroom/room",
	})
	if err != nil {
		log.Fatal(err)
	}
}

type room struct{}

func (room) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName = "room"
}

func (room) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (room) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (room) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (room) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{func() resource.Resource { return machine{} }}
}

// machine is a file at path that holds text.
type machine struct{}

type machineModel struct {
	Path types.String `tfsdk:"path"`
	Text types.String `tfsdk:"text"`
}

func (machine) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "room_machine"
}

func (machine) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	again := []planmodifier.String{stringplanmodifier.RequiresReplace()}
	resp.Schema = schema.Schema{Attributes: map[string]schema.Attribute{
		"path": schema.StringAttribute{Required: true, PlanModifiers: again},
		"text": schema.StringAttribute{Required: true, PlanModifiers: again},
	}}
}

func (machine) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var plan machineModel
	if resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...); resp.Diagnostics.HasError() {
		return
	}
	if err := os.WriteFile(plan.Path.ValueString(), []byte(plan.Text.ValueString()), 0o600); err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("path"), "no machine", err.Error())
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

func (machine) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var state machineModel
	if resp.Diagnostics.Append(req.State.Get(ctx, &state)...); resp.Diagnostics.HasError() {
		return
	}
	if _, err := os.Stat(state.Path.ValueString()); errors.Is(err, os.ErrNotExist) {
		resp.State.RemoveResource(ctx)
	}
}

// Update is never called: every change replaces.
func (machine) Update(context.Context, resource.UpdateRequest, *resource.UpdateResponse) {}

func (machine) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var state machineModel
	if resp.Diagnostics.Append(req.State.Get(ctx, &state)...); resp.Diagnostics.HasError() {
		return
	}
	if err := os.Remove(state.Path.ValueString()); err != nil && !errors.Is(err, os.ErrNotExist) {
		resp.Diagnostics.AddError("the machine stays", err.Error())
	}
}
